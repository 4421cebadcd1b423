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
# Both addresses are given, so that the tries meet somebody. They are easily
# guessed: the first of the Services' range, and the pod's default route.
status kubernetes-api "401 403" "$(answers GET "https://$HOSTILE_API/api/v1/namespaces/default/secrets")"
status kubelet "401 403" "$(answers GET "https://$HOSTILE_NODE:10250/pods")"

# Becoming somebody else
refused root-by-sudo sh -c 'sudo -n true || su -c true'
# The bit of a file of one's own gives nobody's rights, so one of another user
# is looked for, and whether this process could gain anything from it.
refused set-user-id sh -c 'find / -path /proc -prune -o -type f -perm /6000 ! -user "$(id -u)" -print 2>/dev/null | grep -q .'
refused new-privileges grep -Eq '^NoNewPrivs:[[:space:]]*0$' /proc/self/status
refused user-namespace unshare --user --map-root-user mount -t tmpfs tmpfs /mnt
refused enter-namespaces nsenter --target 1 --mount --pid true
refused mount mount -t tmpfs tmpfs /mnt
refused device mknod disk b 8 0
refused kernel-settings sh -c 'echo 1 > /proc/sys/kernel/panic'
refused host-reboot sh -c 'echo b > /proc/sysrq-trigger'
refused raw-packets python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'
refused trace-the-worker python3 -c 'import ctypes, sys; sys.exit(0 if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else 1)'

# The binary and the socket of the worker
refused replace-the-binary sh -c 'echo x > /aphex/bin/aphex || mv /aphex/bin/aphex /aphex/bin/other'
# Whoever is answered at all, if only that it made a mistake, is let in.
say worker-socket "$(python3 - <<'PY'
import socket
worker = socket.socket(socket.AF_UNIX)
worker.settimeout(10)
worker.connect("/aphex/run/worker.sock")
try:
    worker.sendall(b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n")
    answer = worker.recv(1)
except OSError:
    answer = b""
print("limit" if answer else "contained")
PY
)"
refused worker-socket-place sh -c 'mv /aphex/run/worker.sock /aphex/run/mine && mv /aphex/run/mine /aphex/run/worker.sock'

# Staying, and escaping by names
setsid sh -c 'exec env -i sleep 987' > /dev/null 2>&1 &
(cd / && env -i setsid sleep 988 > /dev/null 2>&1 &)
ln -s / root-of-all
ln -s ../../.. up
ln -s / cdk.out
mkdir -p artifacts cached
ln -s /etc/passwd artifacts/passwd
ln -s "$PWD/../../etc" artifacts/folder
echo built > artifacts/product
ln -s /etc/passwd cached/passwd
ln -s ../../../etc cached/folder
# A folder of the commit leads elsewhere, where a later stage's files would go.
rm -rf victim
mkdir -p "$HOME/outside"
ln -s "$HOME/outside" victim

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
printf '[core]\n\tfsmonitor = %s/evil/git\n' "$PWD" >> .git/config
printf '[core]\n\thooksPath = %s/evil\n' "$PWD" > "$HOME/.gitconfig"
printf 'script-shell=%s/evil/git\n' "$PWD" > "$HOME/.npmrc"
printf '{"name": "planted", "version": "1.0.0", "scripts": {"preinstall": "env >npm-environment"}}' > package.json
