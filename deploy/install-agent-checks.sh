# shellcheck shell=sh disable=SC2154,SC2034
# What deploy/install-agent.sh, which reads this, looks at before it changes anything, and why it failed.

check_machine() {
    case $(uname -m) in
    x86_64 | aarch64) ;;
    *) wrong "$(uname -m) is not supported: fleetmark needs a 64-bit x86 or ARM system (on a Raspberry Pi: the 64-bit Raspberry Pi OS)" ;;
    esac
    command -v "$python" >/dev/null || wrong "$python is missing: apt install python3 python3-venv"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        wrong "Python 3.11 or newer is needed; this is $("$python" --version). PYTHON=/path/to/python3.11 chooses another"
    # A Raspberry Pi's 32-bit system runs on a 64-bit kernel, whose name uname tells.
    "$python" -c 'import sys; sys.exit(sys.maxsize < 2**32)' ||
        wrong "this system is a 32-bit one on a 64-bit kernel, which is not supported: install the 64-bit Raspberry Pi OS"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || wrong "python3-venv is missing: apt install python3-venv"
    [ -z "$offline" ] || check_wheels
}

check_kit() {
    [ -d "$kit" ] || wrong "--kit: $kit is no directory"
    wanted='agent-ca.crt agent.crt agent.key'
    # Half a pair beside a password is no kit, either.
    [ ! -e "$kit/agent-password" ] || [ -e "$kit/agent.crt" ] || [ -e "$kit/agent.key" ] || wanted='agent-ca.crt agent-password'
    [ -n "$config" ] || wanted="agent.toml $wanted"
    for file in $wanted; do
        { [ -f "$kit/$file" ] && [ -r "$kit/$file" ]; } ||
            wrong "--kit: $kit/$file is not there or cannot be read; a kit has agent.toml, agent-ca.crt, and agent-password or agent.crt with agent.key"
    done
    config=${config:-$kit/agent.toml}
}

own_version() {
    # The build of a package says which wheel it took.
    if [ "$packaged" = yes ]; then cat version; else sed -n 's/^__version__ = "\(.*\)"/\1/p' protocol/fleetmark_protocol/version.py; fi
}

# With a slash find looks into a linked directory, too.
wheels_of_ours() { find "$1/" -maxdepth 1 -name 'fleetmark-*.whl'; }

check_wheels() {
    version=$(own_version)
    wheel=$(wheels_of_ours "$offline" | grep -F "/fleetmark-$version-" | head -n 1)
    there=$(wheels_of_ours "$offline" | sed 's|.*/fleetmark-\([^-]*\)-.*|\1|' | sort -uV | paste -sd' ' | sed 's/ /, /g')
    # Never any other: the limits of constraints.txt are this version's.
    [ -n "$wheel" ] ||
        wrong "--offline: this is fleetmark $version; $offline has ${there:+only the wheel of }${there:-no wheel of fleetmark}. Make it by --download in this checkout, or take the other checkout"
    this=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    fitting=$(find "$offline/" -name '*-cp3*-cp3*.whl' | sed -n 's/.*-cp3\([0-9]*\)-cp3.*/3.\1/p' | sort -uV | paste -sd' ')
    case " $fitting " in
    '  ' | *" $this "*) ;;
    *) wrong "this is Python $this; the wheels in $offline are for Python $(printf %s "$fitting" | sed 's/ /, /g'). PYTHON=/path/to/python3 chooses another" ;;
    esac
}

be_root() {
    [ "$(id -u)" -eq 0 ] || wrong "run this as root (sudo)"
    command -v systemctl >/dev/null || wrong "systemd is missing; docs/install.md tells how to run the agent without it"
    [ "$packaged" = yes ] || [ ! -e "$package" ] ||
        wrong "the Debian package is installed: apt install a newer one, or apt remove fleetmark-agent before this script"
}

not_made() { # WHAT IT SAID
    printf '%s\n' "$2" | grep -v '^INFO\|^Processing\|^Collecting\|^Looking' | tail -n 20 >&2
    # Python's own venv keeps to itself what it stumbled over.
    case "$2 $(df -Pk "$opt" | awk 'NR == 2 && $4 < 4096 { print "No space left" }')" in *'No space left'* | *'Disk quota exceeded'*)
        die "the disk is full (df -h $opt /tmp shows where); nothing was changed"
        ;;
    esac
    # Its words where nothing pins that package, and where constraints.txt does.
    lacking=$(printf '%s\n' "$2" | sed -n -e 's/^ERROR: No matching distribution found for \([A-Za-z0-9._-]*\).*/\1/p' \
        -e 's/^ *The user requested (constraint) \(.*\)/\1/p' | sort -u | paste -sd' ')
    [ -z "$offline" ] || [ -z "$lacking" ] ||
        wrong "--offline: $offline has no wheel of $lacking for Python $this on $(uname -m); --download makes it on a machine like this one. Nothing was changed"
    die "$1 failed; nothing was changed"
}
