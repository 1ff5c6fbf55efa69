#!/usr/bin/env bash
# Builds the agent's Debian packages, for amd64 and arm64 on either, without root. `make deb` calls it.
#
#   tools/build_deb.sh [--arch A,B] [--with ENGINES] [--out DIR] [--wheels DIR]
#
#   --arch     amd64,arm64 (default), or one of them
#   --with     engines with prebuilt wheels: xllamacpp (default), ollama, langchain; or none
#   --out      where the packages go; default: dist
#   --wheels   take these wheels, one of fleetmark's own among them, and ask no network
#
# DEBFULLNAME and DEBEMAIL say who the packages' maintainer is. The same commit and the same wheels make the
# same bytes (SOURCE_DATE_EPOCH counts, else the time of the commit).
set -euo pipefail
cd "$(dirname "$0")/.."

pythons=(3.11 3.12 3.13)
too_new=3.14
# Of Debian 12, the oldest system with such a Python.
glibc=2.36

say() { printf '[fleetmark] %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
wrong() { say "$*"; exit 2; }

archs=amd64,arm64 with=xllamacpp out=dist wheels=
while [ $# -gt 0 ]; do
    case $1 in
    --arch | --with | --out | --wheels)
        case ${2:-} in '' | --*) wrong "$1 needs a value" ;; esac
        declare "$(case $1 in --arch) echo archs ;; *) echo "${1#--}" ;; esac)=$2"
        shift
        ;;
    *) wrong "unknown option $1; the first lines of $0 list them" ;;
    esac
    shift
done

mapfile -t -d , engines <<<"$with,"
unset 'engines[-1]'
for engine in "${engines[@]}"; do
    case $engine in
    none) [ "$with" = none ] || wrong "--with: none goes alone" ;;
    xllamacpp | ollama | langchain) ;;
    llama-cpp) wrong "llama-cpp is compiled on the device: no package can hold it; deploy/install-agent.sh --with llama-cpp does it there" ;;
    ctransformers | transformers) wrong "$engine has no small wheels for both architectures; deploy/install-agent.sh --with $engine installs it on a device" ;;
    *) wrong "unknown engine '$engine' (known: xllamacpp, ollama, langchain, none); write several as A,B" ;;
    esac
done
extras=agent
[ "$with" = none ] || extras=agent,$with
for arch in ${archs//,/ }; do
    case $arch in amd64 | arm64) ;; *) wrong "unknown architecture $arch (known: amd64, arm64)" ;; esac
done
command -v dpkg-deb >/dev/null || wrong "dpkg-deb is missing: apt install dpkg (packages are built on Debian or Ubuntu)"
if [ -n "$wheels" ]; then
    [ -d "$wheels" ] || wrong "--wheels: $wheels is no directory"
    mapfile -t ours < <(find "$wheels/" -maxdepth 1 -name 'fleetmark-*.whl' -printf '%f\n' | sort -V)
    [ ${#ours[@]} -eq 1 ] || wrong "--wheels: $wheels must have one wheel of fleetmark; it has ${ours[*]:-none}"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
maintainer="${DEBFULLNAME:-The fleetmark team} <${DEBEMAIL:-fleetmark@example.org}>"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y pyproject.toml)}

# What runs on glibc 2.36 and on everything older.
platforms() {
    local machine=x86_64 minor
    [ "$1" = amd64 ] || machine=aarch64
    printf -- '--platform\nmanylinux2014_%s\n--platform\nmanylinux1_%s\n--platform\nmanylinux2010_%s\n' $machine $machine $machine
    for ((minor = 5; minor <= ${glibc#2.}; minor++)); do printf -- '--platform\nmanylinux_2_%d_%s\n' $minor $machine; done
}

fetch() { # ARCH DIR
    local python said step=0 options
    mapfile -t options < <(platforms "$1")
    cp "$work"/fleetmark-*.whl "$2"
    for python in "${pythons[@]}"; do
        step=$((step + 1))
        say "$1: wheels for Python $python ($step of ${#pythons[@]})"
        said=$("$work/venv/bin/pip" download --quiet --disable-pip-version-check --dest "$2" \
            --only-binary=:all: --implementation cp --python-version "$python" "${options[@]}" \
            -c constraints.txt "$(ls "$2"/fleetmark-*.whl)[$extras]" 2>&1) || {
            printf '%s\n' "$said" | tail -n 5 >&2
            die "$1: not all wheels for Python $python could be fetched; nothing was written"
        }
    done
}

control() { # VERSION ARCH SIZE_KIB
    sed -e "s|@VERSION@|$1|; s|@ARCH@|$2|; s|@SIZE@|$3|; s|@GLIBC@|$glibc|; s|@MAINTAINER@|$maintainer|" \
        -e "s|@OLDEST@|${pythons[0]}|; s|@TOO_NEW@|$too_new|; s|@PYTHONS@|${pythons[*]}|; s|@ENGINES@|$with|" \
        deploy/debian/control
}

licences() { # DIR
    python3 - "$1" <<'PYTHON'
import email.parser
import sys
import zipfile
from pathlib import Path

told = set()
for wheel in sorted(Path(sys.argv[1]).glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        about = email.parser.Parser().parsestr(archive.read(name).decode())
    classes = [c.split(" :: ")[-1] for c in about.get_all("Classifier", []) if c.startswith("License")]
    licence = about["License-Expression"] or ", ".join(classes) or (about["License"] or "see the wheel")
    told.add(f" {about['Name']} {about['Version']}: {licence.splitlines()[0]}")
print("\n".join(sorted(told, key=str.lower)))
PYTHON
}

document() { # STAGE VERSION
    local docs=$1/usr/share/doc/fleetmark-agent
    mkdir -p "$docs"
    {
        printf 'Copyright %s The fleetmark team\nLicence: Apache-2.0, see /usr/share/common-licenses/Apache-2.0\n\n' \
            "$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y)"
        printf 'The wheels in /usr/lib/fleetmark-agent/wheels are unchanged from the Python Package Index; each holds\n'
        printf 'its authors and licence. Their own words about it:\n\n'
        licences "$1/usr/lib/fleetmark-agent/wheels"
    } >"$docs/copyright"
    printf 'fleetmark-agent (%s) unstable; urgency=medium\n\n  * fleetmark %s with: %s.\n\n -- %s  %s\n' \
        "$2" "$2" "$with" "$maintainer" \
        "$(LC_ALL=C date -u -d "@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')" | gzip -9n >"$docs/changelog.gz"
    # Takes the development tools, which `make test` and `make sbom` set up.
    if .venv/bin/python -c 'import cyclonedx' 2>/dev/null; then
        .venv/bin/python tools/sbom.py --wheels "$1/usr/lib/fleetmark-agent/wheels" --name fleetmark-agent \
            --version "$2" --out "$docs/sbom.cdx.json" >/dev/null || die "the bill of materials cannot be written"
    else
        say "without a bill of materials: its tool is not here (make sbom)"
    fi
}

build() { # ARCH WHEELS
    local arch=$1 stage=$work/$1 own=$work/$1/usr/lib/fleetmark-agent version size script package
    version=$(basename "$(ls "$2"/fleetmark-*.whl)" | cut -d- -f2 | sed -E 's/\.?(dev|a|b|rc)([0-9])/~\1\2/')
    mkdir -p "$stage/DEBIAN" "$own/deploy/systemd" "$own/wheels" "$out"
    install -D -m 755 deploy/systemd/fleetmark-agent "$stage/usr/bin/fleetmark-agent"
    install -D -m 644 deploy/systemd/fleetmark-agent.service "$stage/usr/lib/systemd/system/fleetmark-agent.service"
    install -D -m 644 deploy/systemd/fleetmark-agent.sysusers.conf "$stage/usr/lib/sysusers.d/fleetmark-agent.conf"
    install -m 755 deploy/install-agent.sh "$own/deploy"
    install -m 644 deploy/install-agent-checks.sh "$own/deploy"
    install -m 644 deploy/systemd/agent.toml "$own/deploy/systemd"
    install -m 644 constraints.txt "$own"
    install -m 755 deploy/cloud-init/ec2.py "$own"
    install -m 644 "$2"/*.whl "$own/wheels"
    echo "$with" >"$own/engines"
    basename "$(ls "$2"/fleetmark-*.whl)" | cut -d- -f2 >"$own/version"
    document "$stage" "$version"
    install -D -m 644 deploy/debian/lintian-overrides "$stage/usr/share/lintian/overrides/fleetmark-agent"
    size=$(du -sk --apparent-size --exclude=DEBIAN "$stage" | cut -f1)
    control "$version" "$arch" "$size" >"$stage/DEBIAN/control"
    install -m 644 deploy/debian/triggers "$stage/DEBIAN"
    # What purging means is said once, by the installer, which is gone by then.
    {
        sed -n '/^root=/,/^done/p; /^purge_rest()/,/^}/p' deploy/install-agent.sh
    } >"$work/purge"
    for script in postinst prerm postrm; do
        sed -e "/^@PURGE@$/{r $work/purge" -e 'd}' "deploy/debian/$script" >"$stage/DEBIAN/$script"
        chmod 755 "$stage/DEBIAN/$script"
    done
    (cd "$stage" && find usr -type f | LC_ALL=C sort | xargs md5sum >DEBIAN/md5sums)
    chmod -R u=rwX,go=rX "$stage"
    find "$stage" -exec touch --no-dereference -d "@$SOURCE_DATE_EPOCH" {} +
    package=$out/fleetmark-agent_${version}_$arch.deb
    # Wheels are compressed already: xz would take a minute, here and on a Pi, for nothing.
    dpkg-deb --root-owner-group -Zgzip -z1 --build "$stage" "$work/$arch.deb" >/dev/null
    # Never a half one under this name.
    cp "$work/$arch.deb" "$package.part" && mv "$package.part" "$package"
    rm -rf "$stage"
    built+=("$package")
}

if [ -z "$wheels" ]; then
    say "building the wheel of fleetmark"
    python3 -m venv "$work/venv" || wrong "python3-venv is missing: apt install python3-venv"
    "$work/venv/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work" . ||
        die "the wheel of fleetmark cannot be built; is there a network?"
fi
built=()
for arch in ${archs//,/ }; do
    from=$wheels
    if [ -z "$from" ]; then
        from=$work/wheels-$arch
        mkdir "$from"
        fetch "$arch" "$from"
    fi
    say "$arch: packing"
    build "$arch" "$from"
done
say "done:"
for package in "${built[@]}"; do say "  $package, $(du -m "$package" | cut -f1) MB"; done
if [ ${#built[@]} -gt 1 ]; then say "ARCH is what \`dpkg --print-architecture\` says on the device:"; archs=ARCH; fi
say "  sudo apt install ./$(basename "${built[0]%_*}")_$archs.deb"
