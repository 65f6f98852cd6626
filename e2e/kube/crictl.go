package main

// The few words of crictl that kind speaks: inspecti and images. The real one cannot be installed as a module.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func crictl(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: crictl inspecti IMAGE | images")
	}
	conn, err := grpc.NewClient("unix:///run/containerd/containerd.sock",
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	images := cri.NewImageServiceClient(conn)
	switch {
	case args[0] == "inspecti" && len(args) > 1:
		return inspect(ctx, images, args[1])
	case args[0] == "images":
		list, err := images.ListImages(ctx, &cri.ListImagesRequest{})
		if err != nil {
			return err
		}
		for _, image := range list.Images {
			fmt.Println(image.Id, image.RepoTags, image.Size)
		}
		return nil
	}
	return fmt.Errorf("unknown words %q", args)
}

func inspect(ctx context.Context, images cri.ImageServiceClient, name string) error {
	answer, err := images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
	if err != nil {
		return err
	}
	image := answer.Image
	if image == nil {
		return fmt.Errorf("no such image %q present", name)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"status": map[string]any{
		"id": image.Id, "repoTags": image.RepoTags, "repoDigests": image.RepoDigests, "size": fmt.Sprint(image.Size),
	}})
}
