# shellcheck shell=bash
# What IP in IP sends, as Wireshark decodes it: tests that are ignored where the kernel has no such links.
for module in veth bridge ipip ip6_tunnel nf_tables nft_masq nft_chain_nat nft_ct; do modprobe "$module" || true; done
remember
tests/encapsulation --ignored
nothing_left
echo "ok ipip is decoded in both families"
