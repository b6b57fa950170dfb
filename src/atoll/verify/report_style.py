"""The page's style: one sheet, two lights, no fonts or pictures from elsewhere."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--ground:#f6f7f5;--sheet:#fff;--ink:#1b2a30;--soft:#5d6f75;--line:#dfe5e3;
--yes:#0d7a5f;--no:#c22f2b;--unknown:#9a6700;--idle:#7b898d;--bar:#9fb6bd;--wash:#eef3f2}
@media(prefers-color-scheme:dark){:root{--ground:#10181b;--sheet:#172226;--ink:#e4ecec;--soft:#94a7ac;
--line:#2a393e;--yes:#4cc9a0;--no:#ff7b72;--unknown:#e3b341;--idle:#7d9096;--bar:#4b646c;--wash:#1d2a2f}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 20px 56px}header{margin-bottom:24px}
.over{margin:0;color:var(--soft);font-weight:600;letter-spacing:.02em}
h1{margin:2px 0 4px;font-size:34px;line-height:1.15;letter-spacing:-.015em}h1.yes{color:var(--yes)}
h1.no{color:var(--no)}h1.unknown{color:var(--unknown)}h2{font-size:19px;margin:36px 0 12px}
h3{margin:0 0 8px;font-size:16px;color:var(--no)}code{font:13px/1.5 ui-monospace,SFMono-Regular,
Menlo,Consolas,monospace;
overflow-wrap:anywhere}.url{margin:0 0 14px}.url code{font-size:15px}
dl{display:flex;flex-wrap:wrap;gap:6px 28px;margin:0}dl div{display:flex;gap:8px}dt{color:var(--soft)}
dd{margin:0;font-variant-numeric:tabular-nums}.pair{display:block;margin-bottom:10px}
.pair dt{min-width:72px}
.pair dd{overflow-wrap:anywhere}.scroll{overflow-x:auto}
table{width:100%;border-collapse:collapse;background:var(--sheet);border:1px solid var(--line);
border-radius:10px;
border-spacing:0;overflow:hidden;min-width:720px}th{text-align:left;color:var(--soft);font-weight:600;
font-size:13px;
padding:10px 14px;background:var(--wash)}td{padding:12px 14px;border-top:1px solid var(--line);
vertical-align:top;
font-variant-numeric:tabular-nums}td:first-child{width:31%}td:nth-child(3){width:27%}
.small{margin:2px 0 0;color:var(--soft);font-size:13px}ul{margin:0;padding:0;list-style:none;
font-size:13.5px}
.idle{color:var(--idle)}.pill{display:inline-block;padding:1px 11px;border-radius:99px;font-weight:600;
font-size:13px;
white-space:nowrap;border:1.5px solid currentColor}.pill.yes{color:var(--yes)}.pill.no{background:var(--no);
border-color:var(--no);color:var(--sheet)}.pill.unknown{color:var(--unknown)}
article{background:var(--sheet);border:1px solid var(--line);border-left:4px solid var(--no);
border-radius:10px;
padding:16px 18px;margin:0 0 14px}ol{margin:10px 0 0;padding-left:22px;color:var(--soft)}
svg{display:block;width:100%;min-width:760px;background:var(--wash);border-radius:8px;margin-top:6px}
.rail{stroke:var(--line);stroke-width:1}.who{fill:var(--soft);font:600 12px ui-sans-serif,system-ui,
sans-serif}
.what{fill:var(--no);font:600 12px ui-sans-serif,system-ui,sans-serif;paint-order:stroke;stroke:var(--wash);
stroke-width:4px}.when{fill:var(--soft);font:11px ui-sans-serif,system-ui,sans-serif}
rect{fill:var(--bar)}rect.fail{fill:none;stroke:var(--bar);stroke-width:1.5}
rect.info,rect.open{fill:none;stroke:var(--unknown);stroke-width:1.5;stroke-dasharray:4 3}
rect.bad{fill:var(--no)}
footer{margin-top:36px;padding-top:14px;border-top:1px solid var(--line);color:var(--soft);font-size:13.5px}
footer p{margin:0 0 6px}
"""
