#!/usr/bin/env bash
# A Python for aarch64 with what nnc needs, from the packages of Debian 12 and the package index, in the folder that is
# given. `NNC_AARCH64=FOLDER pytest tests/test_aarch64.py` then runs nnc in it, by qemu-aarch64.
set -euo pipefail
mkdir -p "$1/lists/partial" "$1/archives/partial" "$1/wheels" "$1/site"
cd "$1"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main" > sources
options=(-q -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State::Lists="$PWD/lists" -o Dir::Cache="$PWD"
    -o Dir::State::status=/dev/null -o Dir::Etc::sourcelist="$PWD/sources" -o Dir::Etc::sourceparts=/dev/null)
apt-get "${options[@]}" update > /dev/null
apt-get "${options[@]}" download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libstdc++6 libgcc-s1 \
    zlib1g libexpat1 libffi8 libssl3 liblzma5 libbz2-1.0 libuuid1 > /dev/null
for package in *.deb; do dpkg -x "$package" .; done
python3 -m pip download -q -d wheels --only-binary=:all: --python-version 3.11 --implementation cp \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
    numpy llvmlite networkx lark click rich
for wheel in wheels/*.whl; do python3 -m zipfile -e "$wheel" site; done
