package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	provisioner  = "holdfast.dev/local"
	selectedNode = "volume.kubernetes.io/selected-node"
	storage      = "volume.kubernetes.io/storage-provisioner"
	volumes      = "/var/local/volumes"
)

// provision makes a directory and a volume for each claim that the scheduler gave to this node. The volume is of kind
// local, so that it stays with its node and fsGroup applies. Volumes whose claim is gone are removed with their data.
func (n *node) provision(ctx context.Context) error {
	claims, err := n.claims.List(labels.Everything())
	if err != nil {
		return err
	}
	for _, claim := range claims {
		ours := claim.Annotations[selectedNode] == n.name && claim.Annotations[storage] == provisioner
		if !ours || claim.Spec.VolumeName != "" || claim.Status.Phase != corev1.ClaimPending {
			continue
		}
		if err := n.makeVolume(ctx, claim); err != nil {
			return err
		}
	}
	return n.removeReleased(ctx)
}

func (n *node) makeVolume(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	name := "local-" + string(claim.UID)
	path := filepath.Join(volumes, name)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	filesystem := corev1.PersistentVolumeFilesystem
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisioner},
			Labels:      map[string]string{"holdfast.dev/node": n.name},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			StorageClassName:              *claim.Spec.StorageClassName,
			VolumeMode:                    &filesystem,
			ClaimRef: &corev1.ObjectReference{
				Kind: "PersistentVolumeClaim", APIVersion: "v1",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
					{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{n.name}},
				}}},
			}},
		},
	}
	_, err := n.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		fmt.Println("made", path, "for", claim.Namespace+"/"+claim.Name)
	}
	return err
}

func (n *node) removeReleased(ctx context.Context) error {
	ours, err := n.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{LabelSelector: "holdfast.dev/node=" + n.name})
	if err != nil {
		return err
	}
	for _, volume := range ours.Items {
		if volume.Status.Phase != corev1.VolumeReleased || volume.Spec.Local == nil {
			continue
		}
		if err := os.RemoveAll(volume.Spec.Local.Path); err != nil {
			return err
		}
		err := n.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		fmt.Println("removed", volume.Spec.Local.Path)
	}
	return nil
}
