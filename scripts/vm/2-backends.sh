# shellcheck shell=bash
# Both backends on this kernel.
for module in veth bridge vxlan nf_tables nft_masq nft_chain_nat nft_ct; do modprobe "$module" || true; done
for backend in host-gw vxlan; do
    up_check_down "$backend" --backend "$backend"
    echo "ok $backend"
done
