"""One HTML page that needs nothing beside it: pictures and style are inside, no script, no network."""

import base64
from collections.abc import Container, Iterable
from html import escape

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; color: #1a1a1a;
  background: #fff; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; }
a { color: #0072b2; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption, .note { font-size: .88rem; color: #444; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; margin: .6rem 0; }
th, td { padding: .22rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e4e4e4; }
th { border-bottom: 1px solid #888; font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: pre; }
th.number { white-space: normal; }
.best { font-weight: 700; }
.warning { border: 1px solid #d55e00; border-left-width: 6px; background: #fff6ee; padding: .3rem 1rem; }
code { font-size: .92em; overflow-wrap: anywhere; }
@media screen and (max-width: 45rem) { figure img { max-width: none; width: 45rem; } }
@media print { body { font-size: 10pt; max-width: none; padding: 0; } nav { display: none; }
  table { font-size: 7.5pt; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } .scroll { overflow: visible; } }
"""


def page(title: str, summary: str, warnings: list[str], sections: list[tuple[str, str, str]]) -> str:
    """The whole page. summary, sections: HTML; warnings: sentences. sections: [(id, heading, HTML)]"""
    contents = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading, _ in sections)
    box = bullets(warnings)
    box = f'<div class="warning" role="note"><strong>Before you compare</strong>{box}</div>' if warnings else ""
    body = "".join(
        f'<section><h2 id="{name}">{escape(heading)}</h2>{content}</section>' for name, heading, content in sections
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>{summary}{box}"
        f"<nav><ul>{contents}</ul></nav>\n{body}</body></html>\n"
    )


def picture(name: str, png: bytes, caption: str) -> str:
    """A figure with its caption; `name`: that of its files."""
    data = base64.b64encode(png).decode()
    width = int.from_bytes(png[16:20], "big") * 0.68  # the same size of text in all figures
    image = f'<img alt="{escape(caption)}" width="{width:.0f}" decoding="async" src="data:image/png;base64,{data}">'
    return (
        f'<figure><div class="scroll">{image}</div>'
        f"<figcaption>{escape(caption)} (<code>{name}.pdf</code>, <code>{name}.png</code>)</figcaption></figure>"
    )


def bullets(sentences: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>" if sentences else ""


def table(head: Iterable[object], rows: Iterable[Iterable[object]], numbers: Container[int] = ()) -> str:
    """rows: cells of text, or (text, class). numbers: indices of the columns that hold numbers."""

    def cell(tag: str, k: int, value: object) -> str:
        text, extra = value if isinstance(value, tuple) else (value, "")
        classes = " ".join(c for c in ("number" if k in numbers else "", extra) if c)
        attribute = f' class="{classes}"' if classes else ""
        return f"<{tag}{attribute}>{escape(str(text))}</{tag}>"

    lines = ["".join(cell("th", k, name) for k, name in enumerate(head))]
    lines += ["".join(cell("td", k, value) for k, value in enumerate(row)) for row in rows]
    return '<div class="scroll"><table>' + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"
