#!/bin/bash
# What mpirun takes for rsh: rsh.sh [-options] ADDRESS COMMAND… runs it in the namespace that has this address in $NODES, under
# that node's name. The nodes know each other's names and no name server (a lookup would wait for it 5 s each).
while [[ $1 == -* ]]; do shift; done
read -r node space < <(awk -v address="$1" '$2 == address {print $1, $3}' "$NODES")
shift
exec nsenter --net="/run/netns/$space" unshare --uts --mount bash -c \
    'hostname "$1"; mount --bind "$2.hosts" /etc/hosts; mount --bind /dev/null /etc/resolv.conf; shift 2; eval "exec $*"' \
    - "$node" "$NODES" "$@"
