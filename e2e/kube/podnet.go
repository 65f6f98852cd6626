package main

// Podnet stands in for a CNI daemon and a storage provisioner on one segment: it writes the CNI configuration for this
// node's pod range, keeps one route per other node, and makes volumes that are local to the node and bound late.

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const conflist = `{"cniVersion":"0.4.0","name":"pods","plugins":[
{"type":"ptp","ipMasq":false,"mtu":1500,"ipam":{"type":"host-local","dataDir":"/run/podnet",
"ranges":[[{"subnet":%q}]],"routes":[{"dst":"0.0.0.0/0"}]}},
{"type":"portmap","capabilities":{"portMappings":true}}]}
`

const retry = 10 * time.Second

type node struct {
	name   string
	client kubernetes.Interface
	nodes  corelisters.NodeLister
	claims corelisters.PersistentVolumeClaimLister
	conf   string // the CNI configuration written last
}

func podnet(ctx context.Context) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	// The API server's own address, so that no service proxy is needed first.
	if endpoint := os.Getenv("CONTROL_PLANE_ENDPOINT"); endpoint != "" {
		config.Host = "https://" + endpoint
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, time.Minute)
	me := &node{
		name:   os.Getenv("NODE_NAME"),
		client: client,
		nodes:  factory.Core().V1().Nodes().Lister(),
		claims: factory.Core().V1().PersistentVolumeClaims().Lister(),
	}
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { poke() },
		UpdateFunc: func(any, any) { poke() },
		DeleteFunc: func(any) { poke() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().Nodes().Informer(), factory.Core().V1().PersistentVolumeClaims().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	pods, services := os.Getenv("POD_SUBNET"), os.Getenv("SERVICE_SUBNET")
	if err := keepIn(pods, services); err != nil {
		return err
	}
	for {
		if err := masquerade(pods); err != nil {
			fmt.Fprintln(os.Stderr, "masquerade:", err)
		}
		if err := me.network(); err != nil {
			return err
		}
		if err := me.provision(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "volumes:", err)
		}
		select {
		case <-changed:
		case <-time.After(retry):
		}
	}
}

// network writes our own pod range and keeps a route to everyone else's.
func (n *node) network() error {
	nodes, err := n.nodes.List(labels.Everything())
	if err != nil {
		return err
	}
	for _, other := range nodes {
		if other.Spec.PodCIDR == "" {
			continue
		}
		if other.Name != n.name {
			if err := route(other); err != nil {
				fmt.Fprintln(os.Stderr, "route to", other.Name, err)
			}
		} else if want := fmt.Sprintf(conflist, other.Spec.PodCIDR); want != n.conf {
			if err := writeFile("/etc/cni/net.d/10-pods.conflist", want); err != nil {
				return err
			}
			n.conf = want
			fmt.Println("pod range", other.Spec.PodCIDR)
		}
	}
	return nil
}

func route(n *corev1.Node) error {
	_, destination, err := net.ParseCIDR(n.Spec.PodCIDR)
	if err != nil {
		return err
	}
	for _, address := range n.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			return netlink.RouteReplace(&netlink.Route{Dst: destination, Gw: net.ParseIP(address.Address)})
		}
	}
	return nil
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// masquerade hides pod addresses from everything outside the pod range.
func masquerade(pods string) error {
	return ensureRule("nat", "POSTROUTING", "-s "+pods+" ! -d "+pods+" -j MASQUERADE")
}

// keepIn refuses what would otherwise leave by the default route: addresses of pods on no known node, and of services
// that no proxy rule has translated. Something outside might even answer.
func keepIn(pods, services string) error {
	_, destination, err := net.ParseCIDR(pods)
	if err != nil {
		return err
	}
	unreachable := &netlink.Route{Dst: destination, Type: unix.RTN_UNREACHABLE, Priority: 4096}
	if err := netlink.RouteReplace(unreachable); err != nil {
		return fmt.Errorf("unreachable %s: %w", pods, err)
	}
	for _, chain := range []string{"FORWARD", "OUTPUT"} {
		if err := ensureRule("filter", chain, "-d "+services+" -j REJECT"); err != nil {
			return err
		}
	}
	return nil
}

func ensureRule(table, chain, rule string) error {
	words := append([]string{chain}, strings.Fields(rule+" -m comment --comment podnet")...)
	if exec.Command("iptables", append([]string{"-w", "-t", table, "-C"}, words...)...).Run() == nil {
		return nil
	}
	out, err := exec.Command("iptables", append([]string{"-w", "-t", table, "-A"}, words...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
