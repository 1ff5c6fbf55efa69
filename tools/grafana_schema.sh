#!/usr/bin/env bash
# Writes tests/fixtures/grafana-VERSION.schema.json: the JSON Schema of Grafana's dashboards and of
# the panels we use, made from the types that Grafana Labs publishes (@grafana/schema, Apache-2.0).
#
#   tools/grafana_schema.sh VERSION      needs npm; names.py says which versions are checked
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:?the version of @grafana/schema, such as 12.4.3}
out=tests/fixtures/grafana-$version.schema.json
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund "@grafana/schema@$version" \
    ts-json-schema-generator@2.9.0 typescript@5.9.3
# Where its types lie differs between versions.
types_of() {
    find node_modules/@grafana/schema/dist -path "*/raw/$1/x/*" -name '*types.gen.d.ts' | head -n1
}
make() {
    npx ts-json-schema-generator --path "$1" --type "$2" --no-type-check -o "$3.json"
}
make "$(types_of dashboard)" Dashboard dashboard
for name in bargauge statetimeline stat table timeseries; do
    file=$(types_of "composable/$name/panelcfg")
    make "$file" Options "$name-options"
    if grep -q "interface FieldConfig" "$file"; then make "$file" FieldConfig "$name-custom"; fi
done
cd - >/dev/null

python3 - "$work" "$out" "$version" <<'PYTHON'
import json
import sys
from pathlib import Path

work, out, version = sys.argv[1:]


def bare(value):
    if isinstance(value, dict):
        # A text is a description; a schema is a field that happens to be called so.
        return {
            key: bare(one)
            for key, one in value.items()
            if key not in ("description", "deprecated") or isinstance(one, dict)
        }
    return [bare(one) for one in value] if isinstance(value, list) else value


def schema(name):
    return bare(json.loads((Path(work) / f"{name}.json").read_text()))


dashboard = schema("dashboard")
# Published as "this should be a regular DataQuery": a datasource adds what it needs.
dashboard["definitions"]["AnnotationTarget"]["additionalProperties"] = True
panels = {}
for kind in ("bargauge", "state-timeline", "stat", "table", "timeseries"):
    parts = {}
    for part in ("options", "custom"):
        name = f"{kind.replace('-', '')}-{part}"
        if (Path(work) / f"{name}.json").exists():
            parts[part] = schema(name)
    panels[kind] = parts
about = (
    f"Made by tools/grafana_schema.sh from @grafana/schema {version}, copyright Grafana Labs, "
    "licensed under the Apache License 2.0; descriptions left out, AnnotationTarget opened."
)
content = {"$comment": about, "dashboard": dashboard, "panels": panels}
Path(out).write_text(json.dumps(content, separators=(",", ":"), sort_keys=True) + "\n")
PYTHON
echo "wrote $out"
