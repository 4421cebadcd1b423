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
