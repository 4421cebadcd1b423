# Tries to reach the sidecar's secrets from a command in the worker.
set -u
tried=0
found=0
leak() { echo "probe: LEAK: $1"; found=$((found + 1)); }
attempt() { tried=$((tried + 1)); }

attempt # Argo's RPC token
[ -e /var/run/argo ] && leak "/var/run/argo is mounted"

attempt # a service-account token, where Kubernetes puts it
[ -e /var/run/secrets/kubernetes.io ] && leak "a service-account token is mounted"

attempt # anything else under the usual place of secrets
if [ -d /var/run/secrets ] && [ -n "$(find /var/run/secrets -type f 2>/dev/null)" ]; then leak "files under /var/run/secrets"; fi

attempt # the sidecar's private folder
[ -e /var/aphex ] && leak "/var/aphex is mounted"

attempt # the environment of this command
env | grep -E '^(AWS_(ACCESS|SECRET|SESSION|ROLE|WEB|CONTAINER_AUTHORIZATION)|ARGO_|APHEX_GIT|APHEX_BUCKET|KUBERNETES_)' && leak "credentials in the environment"

attempt # processes of other containers
for pid in /proc/[0-9]*; do
  if tr '\0' ' ' < "$pid/cmdline" 2>/dev/null | grep -q 'aphex plugin\|aphex task\|argoexec'; then leak "$pid belongs to another container"; fi
done

attempt # environments and memory of visible processes
for pid in /proc/[0-9]*; do
  if tr '\0' '\n' < "$pid/environ" 2>/dev/null | grep -qE '^(AWS_WEB_IDENTITY|APHEX_GIT_CREDENTIALS|APHEX_BUCKET)'; then leak "$pid has the sidecar's environment"; fi
done

attempt # the plugin's RPC without its token
code=$(python3 - <<'PY'
import urllib.error, urllib.request
request = urllib.request.Request("http://127.0.0.1:4355/api/v1/template.execute", data=b"{}", method="POST")
try:
    print(urllib.request.urlopen(request, timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print("nobody")  # a stage's own pod has no plugin
PY
)
[ "$code" = 403 ] || [ "$code" = nobody ] || leak "the plugin answered $code to a call without a token"

attempt # git credentials in the checkout
grep -rqs 'git-password''-of-the-lab' . "$HOME" && leak "the git password is in the workspace"

attempt # git credentials through git itself
[ -n "$(git config --get-regexp '^(credential|http)\.' 2>/dev/null)" ] && leak "git is configured with credentials"

attempt # the Kubernetes API without a token
[ -n "${KUBERNETES_SERVICE_HOST:-}" ] && leak "the Kubernetes API is announced"

attempt # becoming somebody else
[ "$(id -u)" = 10001 ] || leak "runs as $(id -u)"

if [ "$found" -gt 0 ]; then exit 1; fi
echo "probe: $tried ways tried, none leads to a secret"
