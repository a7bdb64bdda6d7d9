#!/bin/bash
# SPDX-License-Identifier: MIT
# Go by cgo, which looks for pointers to Go's memory in what it passes.
source "$(dirname "$0")/common"
needs go gcc
export GOCACHE=$work/cache GOPATH=$work/path GOFLAGS=-mod=mod GOPROXY=off GOTOOLCHAIN=local GODEBUG=cgocheck=2
export CGO_CFLAGS="-O1 -I$top/include" CGO_LDFLAGS="-L$build/src"
cp -r "$here/go" source
cd source
[[ ! $(gofmt -l .) ]] || { echo "not formatted: $(gofmt -l .)"; exit 1; }
go vet .
go build -o ../program .
cd ..
judge ./program
