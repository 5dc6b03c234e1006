# shellcheck shell=bash
# The comparison with the reference plugins, for kinds of links that not every kernel has: the
# cases that are ignored elsewhere.
if [ -d tests/reference-plugins ]; then
    for module in ipvlan 8021q dummy vrf bridge veth; do modprobe "$module" || true; done
    # Each node of the comparison has a /run of its own, where nothing of this one's is.
    mv tests/reference-plugins tests/reference-lists /tmp/
    remember
    WEFT_CNI="$PWD/weft-cni" WEFT_REFERENCE=/tmp/reference-plugins REFERENCE_LISTS=/tmp/reference-lists \
        REFERENCE_PATIENCE=60 REFERENCE_NEEDS="bridge-vlan dummy ipvlan vlan vrf" tests/reference
    nothing_left
    echo "ok the reference's vlan, ipvlan, dummy and vrf, and its bridges with VLANs"
else
    echo "skipped: comparison with the reference plugins (they cannot be built here)"
fi
