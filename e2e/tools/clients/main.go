// Clients uses etcd's own Go library and what is built on it (mutexes, elections, transactional memory, mirrors) against
// a server of its API: clients HOST:PORT,…
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
)

func check(err error) {
	if err != nil {
		log.Output(2, err.Error())
		os.Exit(1)
	}
}

func must(holds bool, what string, values ...any) {
	if !holds {
		log.Output(2, fmt.Sprintf(what, values...))
		os.Exit(1)
	}
}

func main() {
	log.SetFlags(log.Lshortfile)
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(os.Args[1], ","), DialTimeout: 10 * time.Second})
	check(err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	for _, part := range []struct {
		name string
		run  func(context.Context, *clientv3.Client)
	}{
		{"errors", texts}, {"keep alive", keepAlive}, {"mutex", mutex}, {"election", election}, {"stm", stm},
		{"wrappers", wrappers}, {"mirror", mirrors}, {"resumed watch", resumed},
	} {
		part.run(ctx, client)
		fmt.Printf("%s: ok\n", part.name)
	}
}

// texts: errors are known by what they say.
func texts(ctx context.Context, c *clientv3.Client) {
	_, err := c.Put(ctx, "", "x")
	must(errors.Is(err, rpctypes.ErrEmptyKey), "%v", err)
	_, err = c.Get(ctx, "k", clientv3.WithRev(1<<40))
	must(errors.Is(err, rpctypes.ErrFutureRev), "%v", err)
	_, err = c.Put(ctx, "k", "v", clientv3.WithLease(4242))
	must(errors.Is(err, rpctypes.ErrLeaseNotFound), "%v", err)
	_, err = c.Put(ctx, "k", strings.Repeat("x", 1600*1024))
	must(errors.Is(err, rpctypes.ErrRequestTooLarge), "%v", err)
	_, err = c.MemberRemove(ctx, 4242)
	must(errors.Is(err, rpctypes.ErrMemberNotFound), "%v", err)
	_, err = c.UserGet(ctx, "nobody")
	must(errors.Is(err, rpctypes.ErrUserNotFound), "%v", err)
}

func keepAlive(ctx context.Context, c *clientv3.Client) {
	granted, err := c.Grant(ctx, 2)
	check(err)
	alive, err := c.KeepAlive(ctx, granted.ID)
	check(err)
	for range 3 {
		must((<-alive) != nil, "the lease ended")
	}
	left, err := c.TimeToLive(ctx, granted.ID)
	check(err)
	must(left.TTL > 0 && left.GrantedTTL == 2, "%+v", left)
	_, err = c.Revoke(ctx, granted.ID)
	check(err)
	for range alive {
	}
}

// mutex: many who want it, one at a time.
func mutex(ctx context.Context, c *clientv3.Client) {
	var all sync.WaitGroup
	counter := 0
	for range 5 {
		all.Add(1)
		go func() {
			defer all.Done()
			session, err := concurrency.NewSession(c, concurrency.WithTTL(10))
			check(err)
			defer session.Close()
			lock := concurrency.NewMutex(session, "go/mutex")
			for range 4 {
				check(lock.Lock(ctx))
				before := counter
				time.Sleep(time.Millisecond)
				counter = before + 1
				check(lock.Unlock(ctx))
			}
		}()
	}
	all.Wait()
	must(counter == 20, "%d", counter)
}

func election(ctx context.Context, c *clientv3.Client) {
	first, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	check(err)
	second, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	check(err)
	defer second.Close()
	leading := concurrency.NewElection(first, "go/election")
	check(leading.Campaign(ctx, "one"))
	observed := leading.Observe(ctx)
	must(string((<-observed).Kvs[0].Value) == "one", "another leads")
	won := make(chan error, 1)
	waiting := concurrency.NewElection(second, "go/election")
	go func() { won <- waiting.Campaign(ctx, "two") }()
	check(leading.Proclaim(ctx, "still one"))
	must(string((<-observed).Kvs[0].Value) == "still one", "not proclaimed")
	check(first.Close()) // its lease goes, and its leadership with it
	check(<-won)
	must(string((<-observed).Kvs[0].Value) == "two", "another leads")
}

func stm(ctx context.Context, c *clientv3.Client) {
	_, err := c.Put(ctx, "go/stm", "")
	check(err)
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range 5 {
				_, err := concurrency.NewSTM(c, func(s concurrency.STM) error {
					s.Put("go/stm", s.Get("go/stm")+"x")
					return nil
				}, concurrency.WithAbortContext(ctx))
				check(err)
			}
		}()
	}
	all.Wait()
	got, err := c.Get(ctx, "go/stm")
	check(err)
	must(len(got.Kvs[0].Value) == 40, "%d", len(got.Kvs[0].Value))
}

func wrappers(ctx context.Context, c *clientv3.Client) {
	kv := namespace.NewKV(c.KV, "go/ns/")
	_, err := kv.Put(ctx, "k", "v")
	check(err)
	ordered := ordering.NewKV(c.KV, func(clientv3.Op, clientv3.OpResponse, int64) error { return errors.New("backwards") })
	got, err := ordered.Get(ctx, "go/ns/k", clientv3.WithSerializable())
	check(err)
	must(len(got.Kvs) <= 1, "%v", got)
	leased, stop, err := leasing.NewKV(c, "go/leasing/")
	check(err)
	defer stop()
	for n := range 5 {
		_, err = leased.Put(ctx, "go/cached", fmt.Sprint(n))
		check(err)
		got, err = leased.Get(ctx, "go/cached")
		check(err)
		must(string(got.Kvs[0].Value) == fmt.Sprint(n), "%v", got)
	}
}

func mirrors(ctx context.Context, c *clientv3.Client) {
	for n := range 30 {
		_, err := c.Put(ctx, fmt.Sprintf("go/mirror/%02d", n), "x")
		check(err)
	}
	syncer := mirror.NewSyncer(c, "go/mirror/", 0)
	responses, failed := syncer.SyncBase(ctx)
	count := 0
	for response := range responses {
		count += len(response.Kvs)
	}
	check(<-failed)
	must(count == 30, "%d", count)
	updates := syncer.SyncUpdates(ctx)
	_, err := c.Delete(ctx, "go/mirror/00")
	check(err)
	update := <-updates
	must(len(update.Events) == 1 && update.Events[0].Type == clientv3.EventTypeDelete, "%v", update)
}

// resumed: progress, and history from an old revision, with what was there before.
func resumed(ctx context.Context, c *clientv3.Client) {
	put, err := c.Put(ctx, "go/watch", "1")
	check(err)
	_, err = c.Put(ctx, "go/watch", "2")
	check(err)
	watching := c.Watch(clientv3.WithRequireLeader(ctx), "go/watch", clientv3.WithRev(put.Header.Revision), clientv3.WithPrevKV())
	var events []*clientv3.Event
	for len(events) < 2 {
		events = append(events, (<-watching).Events...)
	}
	must(events[1].PrevKv != nil && string(events[1].PrevKv.Value) == "1", "%v", events)
	check(c.RequestProgress(clientv3.WithRequireLeader(ctx)))
	progress := <-watching
	must(progress.IsProgressNotify() && progress.Header.Revision >= events[1].Kv.ModRevision, "%v", progress)
}
