"""Writes the docs that follow from the code: schemas, AsyncAPI, tables of metrics, errors, records.

Run it after any change to the protocol or to what a campaign file may say; a test fails as long as
what it would write differs from what is there. With `--check` it writes nothing and tells by its
exit code.
"""

import sys
from pathlib import Path

from docs_influxdb import schema_page
from docs_schemas import MESSAGES, RECORDS, asyncapi, campaign_schema, json_schema, slug
from docs_tables import errors_page, metrics_page, records_page

ROOT = Path(__file__).resolve().parents[1]
CAMPAIGN = "campaign.schema.json"


def outputs() -> dict[str, str]:
    """Return every generated file's path under docs/ and its text."""
    files = {
        "asyncapi.yaml": asyncapi(),
        "metrics.md": metrics_page(),
        "errors.md": errors_page(),
        "records.md": records_page(),
        "influxdb-schema.md": schema_page(),
    }
    for model in (*MESSAGES.values(), *RECORDS.values()):
        name = f"{slug(model)}.schema.json"
        files[f"schemas/{name}"] = json_schema(model, name)
    files[f"schemas/{CAMPAIGN}"] = campaign_schema(CAMPAIGN)
    return files


def stale(docs: Path) -> list[str]:
    """Return the generated files under `docs` that are missing, differ or belong to nothing."""
    wanted = outputs()
    there = {f"schemas/{file.name}" for file in (docs / "schemas").glob("*.json")}
    differing = [
        path
        for path, text in wanted.items()
        if not (docs / path).is_file() or (docs / path).read_text("utf-8") != text
    ]
    return sorted({*differing, *(there - set(wanted))})


def write(docs: Path) -> list[str]:
    """Bring `docs` up to date; return what changed."""
    changed = stale(docs)
    wanted = outputs()
    for path in changed:
        target = docs / path
        if path not in wanted:
            target.unlink()
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(wanted[path], "utf-8")
    return changed


def main(args: list[str]) -> int:
    """Write or check; return the exit code."""
    docs = ROOT / "docs"
    changed = stale(docs) if "--check" in args else write(docs)
    for path in changed:
        print(f"{'stale' if '--check' in args else 'written'}: docs/{path}")
    return 1 if changed and "--check" in args else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
