#!/bin/sh
# Run the service with a simulated board (docs/container.md). Before its first start the rig is taught
# three smells on two other days of that board, as an owner teaches a real one.
set -eu

state=${STATE:-/var/lib/scentd}
work=$(mktemp -d)
board=${SCENTD_SOURCE__PORT:-/tmp/board}

# Record clean air and a smell on a day of the simulated board.
record_exposure() {
    folder=$work/$1/day-$2 port=$work/port-$1-$2
    mkdir -p "$folder"
    scentd simulate --synthetic "air:90,$1:180" --day "$2" --rig fixed --speed 60 --link "$port" >/dev/null 2>&1 &
    simulator=$!
    while [ ! -e "$port" ]; do sleep 0.1; done
    scentd record --port "$port" --output "$folder/exposure.csv" 2>/dev/null &
    recorder=$!
    wait "$simulator"
    kill "$recorder"
    wait "$recorder"
}

if [ ! -e "$state/smells" ]; then
    echo "Teaching three smells; the service starts in about a minute." >&2
    for smell in star_anise pineapple cloves; do
        for day in 1 2; do record_exposure "$smell" "$day"; done
        scentd enroll "$smell" --recording "$work/$smell"/*/exposure.csv --promote --state "$state" >&2
    done
fi
rm -r "$work"
scentd simulate --rig fixed --speed 5 --loop --link "$board" --synthetic \
    air:150,star_anise:150,air:200,pineapple:150,air:200,garlic:150,air:200,cloves:150,air:200 &
exec scentd run "$@"
