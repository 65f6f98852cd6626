// Locks takes a mutex of etcd's concurrency package again and again, and under it appends the revision of its place in
// the queue to a shared key: locks HOST:PORT,… NAME COUNT
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func check(err error) {
	if err != nil {
		log.Output(2, err.Error())
		os.Exit(1)
	}
}

func main() {
	log.SetFlags(log.Lshortfile)
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(os.Args[1], ","), DialTimeout: 10 * time.Second})
	check(err)
	defer client.Close()
	name, shared := os.Args[2], os.Args[2]+"-order"
	count, err := strconv.Atoi(os.Args[3])
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	check(err)
	defer session.Close()
	for range count {
		mutex := concurrency.NewMutex(session, name)
		check(mutex.Lock(ctx))
		mine, err := client.Get(ctx, mutex.Key())
		check(err)
		before, err := client.Get(ctx, shared)
		check(err)
		order := ""
		if len(before.Kvs) > 0 {
			order = string(before.Kvs[0].Value) + " "
		}
		_, err = client.Put(ctx, shared, order+fmt.Sprintf("go:%d", mine.Kvs[0].CreateRevision))
		check(err)
		check(mutex.Unlock(ctx))
	}
}
