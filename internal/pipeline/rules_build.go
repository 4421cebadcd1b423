package pipeline

import (
	"path"
	"strings"
)

// checkTwice refuses variables that would have two values.
func checkTwice(build cursor) {
	secrets, _ := build.key("secrets").value.(map[string]any) // another type has no keys
	for name := range secrets {
		if build.key("env").has(name) && !strings.HasPrefix(name, "x-") {
			build.doc.addKey(build.key("secrets").key(name).place, "the variable %s is in build.env, too; keep one of them", name)
		}
	}
}

// checkCaches refuses paths that lead out of what commands write, and paths
// that two caches would both restore.
func checkCaches(list cursor) {
	seen := map[string]bool{}
	for _, cache := range list.items() {
		for _, item := range cache.key("key").items() {
			checkPath(item)
		}
		for _, item := range cache.key("paths").items() {
			if !item.sound() {
				continue
			}
			below, home := strings.CutPrefix(item.text(), "~/")
			clean := path.Clean(below)
			if home {
				below, clean = "./"+below, "~/"+clean
			}
			switch {
			case !insideRepository(below) || clean == "." || clean == "~/.":
				item.add("%s cannot be kept; allowed: a file or folder inside the repository or, with ~/ before it, inside HOME, such as \"node_modules\" or \"~/.npm\"", item.doc.showAt(item.place))
			case seen[clean]:
				item.add("%s stands twice under cache; keep one of them", item.doc.showAt(item.place))
			}
			seen[clean] = true
		}
	}
}
