[ "$1" = Other ] && echo "nothing to make" >&2 && exit 4
file=$(mktemp)
printf 'for %s: %s' "$1" "$2" > "$file"
echo "making" >&2
echo "$file"
