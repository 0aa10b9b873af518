#!/bin/bash
# Three hosts on one machine: net.sh up FILE | cut FILE NODE | heal FILE NODE | loss FILE NODE PERCENT | rate FILE NODE RATE |
# clear FILE NODE | down FILE
#
# FILE gets a line per node, `NODE ADDRESS NAMESPACE LINK`, the first for the host. Names and subnet are other than those of
# tests/cluster/net.sh, so that neither suite tidies away the other's. A cut is silent: packets vanish, no connection is reset.
# Loss is by iptables: the queue `netem` is missing from many kernels.
set -euo pipefail
do=$1 file=$2 node=${3:-}
# Nobody remembers that an address did not answer: what failed to resolve is "no route to host" for seconds.
forget() {
    local each
    while read -r _ _ each _; do
        [ "$each" = - ] || ip -n "$each" neigh flush dev eth0
    done <"$file"
    ip neigh flush dev "$(awk '$1 == "host" {print $4}' "$file")"
}
[ "$do" = up ] || read -r _ _ space link < <(grep "^${node:-host} " "$file")
case $do in
up)
    tag=$((RANDOM % 250))
    until ip link add "syb$tag" type bridge 2>/dev/null; do tag=$(((tag + 1) % 250)); done
    net=10.78.$tag
    echo "host $net.254 - syb$tag" >"$file"
    ip addr add "$net.254/24" dev "syb$tag"
    ip link set "syb$tag" up
    for i in 1 2 3; do
        space=syn$tag-$i link=syv$tag-$i
        echo "n$i $net.$i $space $link" >>"$file"
        ip netns add "$space"
        ip link add "$link" type veth peer name eth0 netns "$space"
        ip link set "$link" master "syb$tag" up
        ip -n "$space" addr add "$net.$i/24" dev eth0
        ip -n "$space" link set eth0 up
        ip -n "$space" link set lo up
    done
    ;;
cut) ip link set "$link" down ;;
heal)
    ip link set "$link" up
    forget
    ;;
loss)
    for way in "INPUT -i eth0" "OUTPUT -o eth0"; do
        # shellcheck disable=SC2086
        nsenter --net="/run/netns/$space" iptables -A $way -m statistic --mode random --probability "0.0$4" -j DROP
    done
    ;;
rate) ip netns exec "$space" tc qdisc replace dev eth0 root tbf rate "$4" burst 256kb latency 50ms ;;
clear)
    nsenter --net="/run/netns/$space" iptables -F
    ip netns exec "$space" tc qdisc del dev eth0 root 2>/dev/null || true
    ip link set "$link" up
    forget
    ;;
down)
    while read -r node _ space link; do
        if [ "$node" = host ]; then ip link del "$link" 2>/dev/null || true; else ip netns del "$space" 2>/dev/null || true; fi
    done <"$file"
    ;;
esac
