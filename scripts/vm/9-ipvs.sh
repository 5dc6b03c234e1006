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
# A Deployment whose pods serve on while they are taken out is rolled under load.
cat >roll.yaml <<'ROLL'
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  strategy: {rollingUpdate: {maxUnavailable: 0}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web
        lifecycle: {preStop: {sleep: {seconds: 5}}}
        ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
ROLL
remember
weft lab up --name roll --nodes 2 --proxy ipvs -f roll.yaml
weft lab check --name roll
rolled() {
    local load
    KUBECONFIG="$(weft lab kubeconfig --name roll)" HOME="$PWD"
    export KUBECONFIG HOME
    weft lab exec --name roll node/node1 -- wrk -t 1 -c 4 -d 90 -H 'Connection: close' \
        "http://$(kubectl get service web -o 'jsonpath={.spec.clusterIP}')/" >load &
    load=$!
    kubectl rollout restart deployment web
    kubectl rollout status deployment web --timeout 80s
    # The roll was under load to its end.
    kill -0 "$load"
    wait "$load"
    cat load
    grep -q 'requests in' load
    [ "$(grep -cE 'Socket errors|Non-2xx' load)" -eq 0 ]
}
(rolled)
weft lab down --name roll
nothing_left
echo "ok no request fails while a Deployment is rolled"
