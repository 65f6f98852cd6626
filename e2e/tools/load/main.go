// Load makes the kinds of load that etcd's own generator does not: very many watchers of one key, and very many leases
// that are kept alive. It speaks etcd's API, so it measures any server of that API. Prints one JSON object.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: load watch|lease [flags]")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	endpoints := flags.String("endpoints", "127.0.0.1:2379", "host:port,…")
	streams := flags.Int("streams", 100, "connections, each with one stream")
	count := flags.Int("count", 10000, "watchers, or leases")
	rounds := flags.Int("rounds", 20, "writes that all watchers have to see")
	seconds := flags.Int("seconds", 300, "how long leases are kept alive")
	ttl := flags.Int64("ttl", 60, "of each lease, in seconds")
	_ = flags.Parse(os.Args[2:])
	connections := dial(strings.Split(*endpoints, ","), *streams)
	var result any
	switch os.Args[1] {
	case "watch":
		result = watch(connections, *count, *rounds)
	case "lease":
		result = lease(connections, *count, *ttl, time.Duration(*seconds)*time.Second)
	default:
		log.Fatalf("load: %q is neither watch nor lease", os.Args[1])
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}

func dial(endpoints []string, count int) []*grpc.ClientConn {
	connections := make([]*grpc.ClientConn, count)
	for i := range connections {
		connection, err := grpc.NewClient(endpoints[i%len(endpoints)], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			log.Fatal(err)
		}
		connections[i] = connection
	}
	return connections
}

func quantile(sorted []float64, q float64) float64 {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// watch makes count watchers of one key, spread over the connections, then writes it: how long until each has heard.
func watch(connections []*grpc.ClientConn, count, rounds int) map[string]any {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	heard := make(chan time.Time, count)
	var ready sync.WaitGroup
	ready.Add(count)
	began := time.Now()
	for i, connection := range connections {
		mine := count / len(connections)
		if i < count%len(connections) {
			mine++
		}
		stream, err := pb.NewWatchClient(connection).Watch(ctx)
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			for range mine {
				create := &pb.WatchCreateRequest{Key: []byte("watched")}
				request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}
				if err := stream.Send(request); err != nil {
					log.Fatal(err)
				}
			}
		}()
		go func() {
			for {
				response, err := stream.Recv()
				if err != nil {
					return
				}
				if response.Created {
					ready.Done()
				}
				for range response.Events {
					heard <- time.Now()
				}
			}
		}()
	}
	ready.Wait()
	created := time.Since(began)
	kv := pb.NewKVClient(connections[0])
	var each, last []float64
	for round := range rounds {
		put := time.Now()
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("watched"), Value: fmt.Appendf(nil, "%d", round)}); err != nil {
			log.Fatal(err)
		}
		for n := range count {
			took := float64((<-heard).Sub(put).Microseconds()) / 1000
			each = append(each, took)
			if n == count-1 {
				last = append(last, took)
			}
		}
	}
	sort.Float64s(each)
	sort.Float64s(last)
	return map[string]any{
		"watchers": count, "create_ms": created.Milliseconds(),
		"p50_ms": quantile(each, 0.5), "p99_ms": quantile(each, 0.99),
		"all_p50_ms": quantile(last, 0.5), "all_max_ms": last[len(last)-1],
	}
}

// lease grants count leases and keeps each alive every third of its time; says how many were found to be gone.
func lease(connections []*grpc.ClientConn, count int, ttl int64, long time.Duration) map[string]any {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ids := make([][]int64, len(connections))
	var granting sync.WaitGroup
	began := time.Now()
	for i, connection := range connections {
		granting.Add(1)
		go func() {
			defer granting.Done()
			client := pb.NewLeaseClient(connection)
			for range count / len(connections) {
				granted, err := client.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl})
				if err != nil {
					log.Fatal(err)
				}
				ids[i] = append(ids[i], granted.ID)
				// A long time of granting must not let the first ones end.
				if time.Since(began) > time.Duration(ttl)*time.Second*9/10 {
					log.Fatal("granting takes longer than the leases live")
				}
			}
		}()
	}
	granting.Wait()
	granted := time.Since(began)
	var keeping sync.WaitGroup
	var mutex sync.Mutex
	var sent, answered, lost int
	var slowest time.Duration
	end := time.Now().Add(long)
	for i, connection := range connections {
		stream, err := pb.NewLeaseClient(connection).LeaseKeepAlive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		times := make(chan time.Time, len(ids[i])*2)
		keeping.Add(2)
		go func() {
			defer keeping.Done()
			pause := time.Duration(ttl) * time.Second / 3 / time.Duration(len(ids[i]))
			next := time.Now()
			for n := 0; time.Now().Before(end); n++ {
				time.Sleep(time.Until(next))
				next = next.Add(pause)
				times <- time.Now()
				if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: ids[i][n%len(ids[i])]}); err != nil {
					log.Fatal(err)
				}
				mutex.Lock()
				sent++
				mutex.Unlock()
			}
			_ = stream.CloseSend()
		}()
		go func() {
			defer keeping.Done()
			for {
				response, err := stream.Recv()
				if err != nil {
					return
				}
				took := time.Since(<-times)
				mutex.Lock()
				answered++
				slowest = max(slowest, took)
				if response.TTL <= 0 {
					lost++
				}
				mutex.Unlock()
			}
		}()
	}
	keeping.Wait()
	alive, err := pb.NewLeaseClient(connections[0]).LeaseLeases(ctx, &pb.LeaseLeasesRequest{}, grpc.MaxCallRecvMsgSize(1<<30))
	if err != nil {
		log.Fatal(err)
	}
	return map[string]any{
		"leases": count, "granted_per_second": float64(count) / granted.Seconds(), "keep_alives": sent, "answered": answered,
		"lost": lost, "alive": len(alive.Leases), "slowest_ms": slowest.Milliseconds(),
	}
}
