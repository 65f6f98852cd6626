#!/usr/bin/env bash
# Takes the cluster shop back to a snapshot that backup.yaml saved: restore.sh [SNAPSHOT] [OPTIONS OF KUBECTL], by default the newest.
# It stops before it gives anything up if the snapshot cannot be restored, and may be run again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
snapshot=
if [ "${1:-}" ] && [ "${1#-}" = "$1" ]; then snapshot=$1; shift; fi
options=("$@")
k() { kubectl "${options[@]}" "$@"; }

lost=$(k get hfc shop -o jsonpath='{.status.clusterID}')
k patch hfc shop --type=merge -p '{"spec":{"paused":true}}'
k wait hfc/shop --for=condition=Paused
k scale statefulset shop-voter --replicas=0
k delete job shop-restore --ignore-not-found
k delete pvc data-shop-voter-0 --ignore-not-found # returns when its pod is gone
sed "s|{name: SNAPSHOT, value: \"\"}|{name: SNAPSHOT, value: \"$snapshot\"}|" "$here/restore.yaml" | k create -f -
until [ "$(k get job shop-restore -o jsonpath='{.status.succeeded}')" = 1 ]; do
  if [ "$(k get job shop-restore -o jsonpath='{.status.failed}')" ]; then
    k logs job/shop-restore
    echo "nothing was restored. The volumes of the other voters hold the cluster $lost as before: run this again with another"
    echo "snapshot; or go back to it, if they are its majority: kubectl delete job/shop-restore pvc/data-shop-voter-0, and unpause."
    exit 1
  fi >&2
  sleep 1
done
k logs job/shop-restore
k delete job shop-restore
k annotate hfc shop --overwrite "holdfast.dev/wipe=$lost"
k patch hfc shop --type=merge -p '{"spec":{"paused":false}}'
until [ "$(k get hfc shop -o jsonpath='{.status.clusterID}')" != "$lost" ]; do sleep 1; done
k annotate hfc shop holdfast.dev/wipe-
k wait hfc/shop --for=condition=Ready --timeout=10m
