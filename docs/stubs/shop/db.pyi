from sqlalchemy.ext.asyncio import AsyncEngine

orders_engine: AsyncEngine
stock_engine: AsyncEngine
