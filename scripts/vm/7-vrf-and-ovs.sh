# shellcheck shell=bash
# The vrf plugin, and the ovs plugin with Open vSwitch's datapath in the kernel: what the kernel
# of the machine may not have.
for module in vrf openvswitch; do modprobe "$module" || true; done
export WEFT_CNI="$PWD/weft-cni"
remember
tests/chained --ignored vrf::
echo "ok vrf plugin"
# Endless answers take longer than the plugin waits where instructions are emulated.
WEFT_OVS_DATAPATH=system tests/ovs --skip a_database_that_answers
echo "ok ovs plugin with the kernel's datapath"
nothing_left
