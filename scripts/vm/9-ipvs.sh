# shellcheck shell=bash
# The proxy mode ipvs: the table of connections that every mode is held to, what becomes of connections, a lab
# in the mode, and what is said where there is no IPVS.
for module in veth bridge vxlan dummy nf_tables nft_masq nft_chain_nat nft_ct nft_fib_ipv4 nft_fib_ipv6 \
    nft_reject_ipv4 nft_reject_ipv6 nft_numgen br_netfilter; do
    modprobe "$module" || true
done
loader="$(cat /proc/sys/kernel/modprobe)"
if ! grep -q '^ip_vs ' /proc/modules; then
    echo /bin/false >/proc/sys/kernel/modprobe
    refused 'modprobe -a ip_vs ip_vs_rr' weft lab up --name noipvs --nodes 2 --proxy ipvs -f examples/two-pods.yaml
    echo "$loader" >/proc/sys/kernel/modprobe
    echo "ok a kernel without IPVS is refused"
fi
modprobe -a ip_vs ip_vs_rr
remember
tests/ipvs --ignored --skip one_endpoint_among_many --skip kube_proxy
echo "ok virtual servers follow the plan, and connections outlive it"
tests/bench --ignored every_row_holds_with_ipvs
echo "ok every row holds"
WEFT_SERVICES=300 tests/ipvs --ignored --nocapture one_endpoint_among_many
echo "ok the change of one endpoint"
nothing_left
if [ -d tests/kubernetes ]; then
    export WEFT_KUBERNETES="$local_copy/tests/kubernetes"
    # Each waits minutes for the kernel to forget a connection: all at once.
    tests/ipvs --ignored --test-threads=4 kube_proxy
    echo "ok every mode takes over from kube-proxy's"
    nothing_left
else
    echo "skipped: kube-proxy could not be built"
fi
cat >service.yaml <<'SERVICE'
apiVersion: v1
kind: Service
metadata: {name: pong}
spec:
  selector: {app: pong}
  ipFamilyPolicy: PreferDualStack
  type: NodePort
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: dns, port: 53, protocol: UDP, targetPort: 5353}
SERVICE
up_check_down ipvs --proxy ipvs --pod-cidr 10.244.0.0/16 --pod-cidr fd00:244::/48 -f service.yaml
echo "ok a lab"
