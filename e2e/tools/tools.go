//go:build tools

// Package tools names the programs of others that tests and benchmarks run, so that go.mod pins them.
package tools

import (
	_ "github.com/summerwind/h2spec/cmd/h2spec"
	_ "go.etcd.io/etcd/etcdctl/v3"
	_ "go.etcd.io/etcd/server/v3"
	_ "go.etcd.io/etcd/v3/tools/benchmark"
)
