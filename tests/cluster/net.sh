#!/bin/bash
# Networks of their own for nodes on one host: net.sh up N FILE | cut FILE NODE | heal FILE NODE | down FILE
#
# FILE gets a line per node, `NODE ADDRESS NAMESPACE LINK`, and one for the host; names carry a number of this call, so
# that two clusters do not meet. A cut is silent: packets vanish, no connection is reset.
set -euo pipefail
case $1 in
up)
    n=$2 file=$3 tag=$((RANDOM % 100)) bridge= net=
    while ip link show "stb$tag" >/dev/null 2>&1; do tag=$(((tag + 1) % 100)); done
    bridge=stb$tag net=10.77.$tag
    echo "host $net.254 - $bridge" >"$file"
    ip link add "$bridge" type bridge
    ip addr add "$net.254/24" dev "$bridge"
    ip link set "$bridge" up
    for i in $(seq "$n"); do
        space=stn$tag-$i link=stv$tag-$i
        echo "n$i $net.$i $space $link" >>"$file"
        ip netns add "$space"
        ip link add "$link" type veth peer name eth0 netns "$space"
        ip link set "$link" master "$bridge" up
        ip -n "$space" addr add "$net.$i/24" dev eth0
        ip -n "$space" link set eth0 up
        ip -n "$space" link set lo up
        ip -n "$space" route add default via "$net.254"
    done
    ;;
cut) ip link set "$(awk -v node="$3" '$1 == node {print $4}' "$2")" down ;;
heal) ip link set "$(awk -v node="$3" '$1 == node {print $4}' "$2")" up ;;
down)
    # the kernel lets a namespace go in its own time: links first
    while read -r node _ space link; do
        ip link del "$link" 2>/dev/null || true
        [ "$node" = host ] || ip netns del "$space" 2>/dev/null || true
    done <"$2"
    ;;
esac
