# Tries what hostile code of a build would, and says of each try how it ended:
# contained, or a limit. docs/security.md has the same list.
set +e +o pipefail
say() { echo "hostile: $1: $2"; }
contained() { say "$1" contained; }
limit() { say "$1" limit; }
# refused ID COMMAND... is contained if the command fails.
refused() {
  id=$1
  shift
  if "$@" > /dev/null 2>&1; then limit "$id"; else contained "$id"; fi
}
# answers METHOD URL [FILE] prints the status of an answer, or "nobody".
answers() {
  python3 - "$@" <<'PY'
import ssl, sys, urllib.error, urllib.request
method, url = sys.argv[1:3]
data = open(sys.argv[3], "rb").read() if len(sys.argv) > 3 else None
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    print(urllib.request.urlopen(urllib.request.Request(url, data=data, method=method), timeout=3, context=context).status)
except urllib.error.HTTPError as error:
    print(error.code)
except Exception:
    print("nobody")
PY
}
# status ID WANTED ANSWER is contained if the answer is one of those wanted.
status() { case " $2 " in *" $3 "*) contained "$1" ;; *) limit "$1" ;; esac; }

# Credentials
refused argo-token test -e /var/run/argo
refused service-account-token test -e /var/run/secrets/kubernetes.io
refused other-secrets grep -rqs . /var/run/secrets
refused private-folder test -e /var/aphex
refused credentials-in-environment sh -c 'env | grep -E "^(AWS_(ACCESS|SECRET|SESSION|ROLE|WEB|CONTAINER_AUTHORIZATION)|ARGO_|APHEX_GIT|APHEX_BUCKET|KUBERNETES_)"'
refused git-password sh -c 'grep -rqs "git-password""-of-the-lab" . "$HOME" || git config --get-regexp "^(credential|http)\."'
status instance-metadata "nobody" "$(answers PUT http://169.254.169.254/latest/api/token)"
status container-credentials "nobody" "$(answers GET http://169.254.170.23/v1/credentials)"

# Other containers
refused other-processes sh -c 'cat /proc/[0-9]*/cmdline | tr "\0" " " | grep -E "[a]phex plugin|[a]phex task|[a]rgoexec"'
refused other-environments sh -c 'cat /proc/[0-9]*/environ | tr "\0" "\n" | grep -E "^(AWS_WEB_IDENTITY|APHEX_GIT_CREDENTIALS|APHEX_BUCKET)"'
refused other-memory sh -c 'for p in /proc/[0-9]*; do if [ "$(stat -c %u "$p")" != "$(id -u)" ] && head -c 1 "$p/mem"; then exit 0; fi; done; exit 1'
refused other-files sh -c 'for p in /proc/[0-9]*; do if [ "$(stat -c %u "$p")" != "$(id -u)" ] && ls "$p/root/"; then exit 0; fi; done; exit 1'

# The plugin and the cluster
printf '{}' > small.json
head -c 6000000 /dev/zero > large.json
status plugin-without-token "403 nobody" "$(answers POST http://127.0.0.1:4355/api/v1/template.execute small.json)"
status plugin-large-request "403 413 nobody" "$(answers POST http://127.0.0.1:4355/api/v1/template.execute large.json)"
status plugin-other-paths "403 404 200 nobody" "$(answers GET http://127.0.0.1:4355/debug/pprof/)"
rm -f small.json large.json
api=$(sed -n 's/^nameserver \([0-9]*\.[0-9]*\.[0-9]*\)\..*/\1.1/p' /etc/resolv.conf | head -n 1)
status kubernetes-api "401 403 nobody" "$(answers GET "https://${api:-10.96.0.1}/api/v1/namespaces/default/secrets")"
status kubelet "401 403 nobody" "$(answers GET "https://$(ip -4 route 2>/dev/null | awk '/default/ {print $3}'):10250/pods")"

# Becoming somebody else
refused root-by-sudo sh -c 'sudo -n true || su -c true'
refused set-user-id sh -c 'cp "$(command -v id)" ./id && chmod u+s ./id && [ "$(./id -u)" = 0 ]'
rm -f id
refused mount mount -t tmpfs tmpfs /mnt
refused device mknod disk b 8 0
refused kernel-settings sh -c 'echo 1 > /proc/sys/kernel/panic'
refused host-reboot sh -c 'echo b > /proc/sysrq-trigger'
refused raw-packets python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'
refused trace-the-worker python3 -c 'import ctypes, sys; sys.exit(0 if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else 1)'

# The binary and the socket of the worker
refused replace-the-binary sh -c 'echo x > /aphex/bin/aphex || mv /aphex/bin/aphex /aphex/bin/other'
if python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("/aphex/run/worker.sock")' 2> /dev/null; then limit worker-socket; else contained worker-socket; fi

# Staying, and escaping by names
setsid sh -c 'exec env -i sleep 987' > /dev/null 2>&1 &
(cd / && env -i setsid sleep 988 > /dev/null 2>&1 &)
ln -s / root-of-all
ln -s ../../.. up
mkdir -p artifacts
ln -s /etc/passwd artifacts/passwd
ln -s "$PWD/../../etc" artifacts/folder
echo built > artifacts/product

# Poison for later stages
export POISON=1 BASH_ENV="$PWD/poison.sh"
printf 'touch "$HOME/poisoned-by-bash-env"\n' > poison.sh
export PATH="$PWD/evil:$PATH"
mkdir -p evil
printf '#!/bin/sh\ntouch "$HOME/poisoned-by-path"\n' > evil/git
cp evil/git evil/curl
chmod +x evil/git evil/curl
printf '. "$HOME/x"; touch "$HOME/poisoned-by-profile"\n' | tee "$HOME/.bashrc" "$HOME/.bash_profile" "$HOME/.profile" > /dev/null
mkdir -p .git/hooks
printf '#!/bin/sh\ntouch "$HOME/poisoned-by-hook"\n' > .git/hooks/post-checkout
chmod +x .git/hooks/post-checkout
printf '[core]\n\thooksPath = %s/evil\n' "$PWD" > "$HOME/.gitconfig"
printf 'script-shell=%s/evil/git\n' "$PWD" > "$HOME/.npmrc"
