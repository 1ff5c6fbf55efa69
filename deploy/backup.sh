#!/bin/sh
# One whole backup of the compose project, while it runs: a directory named by the time, in backups/
# here or in the directory given. docs/operate.md says how each part is put back.
set -eu
umask 077
cd "$(dirname "$0")"

to=${1:-backups}/$(date -u +%Y%m%d-%H%M%S)
mkdir -p "$to"

# Out of a container as a stream, so that nobody's user numbers must fit. Campaigns come before
# records: no campaign in the copy knows of records that the copy has not.
docker compose exec -T collector sh -c \
    'rm -rf /tmp/b && fleetmark backup /tmp/b >&2 && tar -c -C /tmp/b . && rm -r /tmp/b' \
    >"$to/collector.tar"
docker compose exec -T influxdb sh -c \
    'rm -rf /tmp/b && influx backup /tmp/b >&2 && tar -c -C /tmp/b . && rm -r /tmp/b' \
    >"$to/influxdb.tar"
# The CA, certificates, passwords, tokens: whoever has this file is the centre.
tar -cf "$to/secrets.tar" secrets .env
for part in collector influxdb secrets; do
    [ -s "$to/$part.tar" ] || { echo "$to/$part.tar is empty" >&2; exit 1; }
done
echo "$to"
