"""The page of a check: what to fix before training, with pictures, and what the data looks like."""

import csv
import io
from pathlib import Path

from vitreous.data.check.check import Check
from vitreous.data.check.findings import COLUMNS
from vitreous.data.check.sheet import CELL, contact_sheet, rows_of, thumbnails
from vitreous.pages.check.view import check_view
from vitreous.pages.templates import render
from vitreous.support.files import atomic_folder, write_bytes, write_json, write_text
from vitreous.support.text import csv_cell

PAGE, SHEET, NUMBERS, TABLE = "check.html", "contact_sheet.png", "check.json", "findings.csv"


def write_check(check: Check, folder: str | Path) -> Path:
    """Writes a page that loads nothing else, a contact sheet, and all findings as JSON and CSV.

    Args:
        check: what was found; only the images shown are loaded.
        folder: to write to; it is created.

    Returns:
        The page.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(folder)
    rows = rows_of(check)
    images = thumbnails(check.samples, [number for row in rows for number in row.numbers], CELL)
    with atomic_folder(folder, last=PAGE) as made:
        write_bytes(made / SHEET, contact_sheet(rows, images))
        write_json(made / NUMBERS, check.to_dict())
        write_text(made / TABLE, findings_table(check))
        write_text(made / PAGE, render("check", check_view(check, rows, images)))
    return folder / PAGE


def findings_table(check: Check) -> str:
    """Every row of every finding as CSV, with the columns of all kinds; no spreadsheet runs a cell as a formula."""
    columns = list(dict.fromkeys(column for finding in check.findings for column in COLUMNS[finding.kind]))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["kind", "severity", *columns])
    for finding in check.findings:
        for row in finding.items:
            cells = dict(zip(COLUMNS[finding.kind], row, strict=True))
            table.writerow([csv_cell(cell) for cell in (finding.kind, finding.severity, *map(cells.get, columns))])
    return text.getvalue()
