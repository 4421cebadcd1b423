# Looks, in a later stage, for what hostile.sh has left.
say() { echo "hostile: $1: $2"; }
contained() { say "$1" contained; }
limit() { say "$1" limit; }
refused() {
  id=$1
  shift
  if "$@" > /dev/null 2>&1; then limit "$id"; else contained "$id"; fi
}
refused left-running sh -c 'cat /proc/[0-9]*/cmdline | tr "\0" " " | grep -E "sleep 98[78]"'
refused exported-variables test -n "${POISON:-}${BASH_ENV:-}"
refused path sh -c 'echo "$PATH" | grep evil'
refused bash-env test -e "$HOME/poisoned-by-bash-env"
refused shell-profile test -e "$HOME/poisoned-by-profile"
refused programs-in-path test -e "$HOME/poisoned-by-path"
refused git-hooks test -e "$HOME/poisoned-by-hook"
refused files-in-home test -e "$HOME/.npmrc"
refused git-folder sh -c 'test -e .git/hooks/post-checkout || git config --local core.fsmonitor'
refused write-through-links test -e "$HOME/outside/file"
refused app-output-link sh -c '! test -L cdk.out'

# Scripts that the build has planted, of which a settings file in HOME would
# make something else.
npm_config_userconfig=/dev/null npm install --offline --no-audit --no-fund > /dev/null 2>&1
refused npm-scripts test -e npm-environment
if [ -e npm-environment ]; then
  refused npm-script-credentials grep -Eq '^AWS_(ACCESS|SECRET|SESSION)' npm-environment
  refused npm-script-other-credentials grep -Eq '^(AWS_(ROLE_ARN|WEB|CONTAINER)|ARGO_|APHEX_GIT|KUBERNETES_)' npm-environment
fi
