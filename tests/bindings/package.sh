#!/bin/bash
# SPDX-License-Identifier: MIT
# The Python package: pip installs it without a network, against the library, and it does what its README says.
source "$(dirname "$0")/common"
{ python3 -m pip --version && python3 -c 'import setuptools, wheel'; } >/dev/null 2>&1 || {
    echo "package: python3-pip, python3-setuptools or python3-wheel is missing; scripts/install-deps full installs them"
    exit 77
}
[[ -e $build/bundle/libploop-bundle.so.2 ]] || {
    echo "package: the library of bundles was not built"
    exit 77
}
version=$(sed -n 's/^project(ploop VERSION \([0-9.]*\).*/\1/p' "$top/CMakeLists.txt")
grep -qx "version = \"$version\"" "$top/python/pyproject.toml" || { echo "python/pyproject.toml has another version"; exit 1; }
# pip builds in the source folder.
cp -r "$top/python" source
python3 -m pip install --quiet --no-index --no-build-isolation --no-deps --disable-pip-version-check --root-user-action=ignore \
    --target site ./source
mkdir disks
cd disks
PYTHONPATH=$work/site python3 "$here/test_package.py" "$top/python/README.md"
