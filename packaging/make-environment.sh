#!/bin/sh
# Make the Python environment of an image: scentd, its page and nothing that they do not need.
# Every package is pinned with the hashes of its files.
set -eu

if [ $# -lt 3 ]; then
    echo "usage: make-environment.sh ENVIRONMENT WHEEL REQUIREMENTS..." >&2
    exit 2
fi
environment=$1 wheel=$2
shift 2

# Pip stays in an environment of its own, which is removed.
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
python3 -m venv --without-pip "$environment"
install() {
    "$tools/bin/python" -m pip --python "$environment/bin/python" --disable-pip-version-check \
        --quiet --no-cache-dir install --no-deps "$@"
}

for requirements; do
    install --require-hashes --only-binary :all: -r "$requirements"
done
install --no-index "$wheel"
sh "$(dirname "$0")/trim-environment" "$environment"/lib/python3.*/site-packages
