# shellcheck shell=bash
# Link kinds that not every kernel has, and the plugins that make them: tests that are ignored
# elsewhere.
for module in ipvlan 8021q dummy vrf macvlan bridge veth tun; do modprobe "$module" || true; done
export WEFT_CNI="$PWD/weft-cni"
remember
tests/kinds --ignored
echo "ok kinds of links are made and read as on every kernel"
tests/veth --ignored
echo "ok a bridge that keeps VLANs apart"
tests/link_kinds --ignored --skip sriov
echo "ok ipvlan, vlan and dummy plugins"
nothing_left
