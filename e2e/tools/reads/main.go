// Reads is the load program of etcd's own Go library in `make bench-client`; benchmarks/clients/protocol.py says what
// a load program does.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	read    = "bench/read"
	watched = "bench/watched"
	linger  = 5 * time.Second
)

type recorded struct {
	Reads    [][2]float64 `json:"reads"`
	Failures [][2]any     `json:"failures"`
	Late     float64      `json:"late"`
	Attempts int          `json:"attempts"`
	CPU      float64      `json:"cpu"`
	Watches  [][][2]any   `json:"watches"`
}

func unix(at time.Time) float64 { return float64(at.UnixNano()) / 1e9 }

// cpu returns the seconds of the processor that this process has used.
func cpu() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}

// connect makes a client with the keep-alive pings of holdfast's, without which it would not notice a frozen server.
func connect(endpoints []string) *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second, PermitWithoutStream: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	return client
}

func main() {
	endpoints := flag.String("endpoints", "", "host:port,…")
	rate := flag.Float64("rate", 1000, "reads a second, of all clients together")
	seconds := flag.Float64("seconds", 60, "how long")
	clients := flag.Int("clients", 1, "clients that read")
	watches := flag.Int("watches", 0, "clients that watch")
	serializable := flag.Bool("serializable", false, "the member's own state, which may be old")
	_ = flag.Bool("hedge", false, "has no effect: the library does not hedge")
	timeout := flag.Float64("timeout", 10, "seconds, of each read")
	flag.Parse()
	all := strings.Split(*endpoints, ",")
	var options []clientv3.OpOption
	if *serializable {
		options = append(options, clientv3.WithSerializable())
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	found := recorded{Reads: [][2]float64{}, Failures: [][2]any{}, Watches: make([][][2]any, *watches)}
	var lock sync.Mutex
	for i := range found.Watches {
		found.Watches[i] = [][2]any{}
		client := connect(all)
		changes := client.Watch(clientv3.WithRequireLeader(ctx), watched, clientv3.WithCreatedNotify())
		<-changes
		go func() {
			following := int64(0)
			for ctx.Err() == nil {
				for response := range changes {
					now := unix(time.Now())
					lock.Lock()
					for _, event := range response.Events {
						found.Watches[i] = append(found.Watches[i], [2]any{string(event.Kv.Value), now})
						following = event.Kv.ModRevision + 1
					}
					lock.Unlock()
				}
				// A member without a leader ends the watch; a user makes another one.
				time.Sleep(100 * time.Millisecond)
				changes = client.Watch(clientv3.WithRequireLeader(ctx), watched, clientv3.WithRev(following))
			}
		}()
	}
	readers := make([]*clientv3.Client, *clients)
	for i := range readers {
		readers[i] = connect(all)
		if _, err := readers[i].Get(ctx, read); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("ready")
	var reading sync.WaitGroup
	began, used := time.Now(), cpu()
	for number := range int(*rate * *seconds) {
		due := began.Add(time.Duration(float64(number) / *rate * 1e9))
		time.Sleep(time.Until(due))
		reading.Add(1)
		go func() {
			defer reading.Done()
			late := time.Since(due).Seconds()
			limited, done := context.WithTimeout(ctx, time.Duration(*timeout*1e9))
			_, err := readers[number%len(readers)].Get(limited, read, options...)
			done()
			took := time.Since(due).Seconds()
			lock.Lock()
			defer lock.Unlock()
			found.Late = max(found.Late, late)
			if err != nil {
				found.Failures = append(found.Failures, [2]any{unix(due), err.Error()})
			} else {
				found.Reads = append(found.Reads, [2]float64{unix(due), took})
			}
		}()
	}
	reading.Wait()
	found.CPU = cpu() - used
	if *watches > 0 {
		time.Sleep(linger)
	}
	lock.Lock()
	defer lock.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}
