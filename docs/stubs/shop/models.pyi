from pydantic import BaseModel

class Order(BaseModel):
    id: int
    sku: str
    pieces: int

class Charge(BaseModel):
    receipt: str

class Price(BaseModel):
    cents: int
