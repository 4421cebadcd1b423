package diff

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// leaf is a value that differs.
type leaf struct {
	steps    []step
	old, new any
	// hasOld and hasNew say on which sides the value is.
	hasOld, hasNew bool
}

// step is a key, or a position if key is not set.
type step struct {
	key      string
	isKey    bool
	position int
}

// walker finds the values that differ between two documents. Every difference
// is in exactly one leaf.
type walker struct {
	// same says that two texts may be the same though they differ; may be nil.
	same   func(ours, live string) bool
	leaves []leaf
	// unsure says that same let a text pass.
	unsure bool
}

func (w *walker) walk(steps []step, old, now any) {
	switch before := old.(type) {
	case map[string]any:
		if after, ok := now.(map[string]any); ok && !differentFunctions(before, after) {
			w.objects(steps, before, after)
			return
		}
	case []any:
		if after, ok := now.([]any); ok {
			w.lists(steps, before, after)
			return
		}
	}
	if !w.equal(old, now) {
		w.add(leaf{steps: steps, old: old, new: now, hasOld: true, hasNew: true})
	}
}

func (w *walker) add(l leaf) {
	l.steps = slices.Clone(l.steps)
	w.leaves = append(w.leaves, l)
}

func (w *walker) objects(steps []step, old, now map[string]any) {
	keys := slices.Collect(maps.Keys(old))
	for key := range now {
		if _, ok := old[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		at := append(slices.Clip(steps), step{key: key, isKey: true})
		before, hasOld := old[key]
		after, hasNew := now[key]
		if hasOld && hasNew {
			w.walk(at, before, after)
			continue
		}
		w.add(leaf{steps: at, old: before, new: after, hasOld: hasOld, hasNew: hasNew})
	}
}

// lists compares what is left without the equal ends, position by position, so
// that one entry put in or taken out anywhere is one leaf.
func (w *walker) lists(steps []step, old, now []any) {
	begin := 0
	for begin < min(len(old), len(now)) && w.equal(old[begin], now[begin]) {
		begin++
	}
	end := 0
	for end < min(len(old), len(now))-begin && w.equal(old[len(old)-1-end], now[len(now)-1-end]) {
		end++
	}
	for i := begin; i < max(len(old), len(now))-end; i++ {
		at := append(slices.Clip(steps), step{position: i})
		hasOld, hasNew := i < len(old)-end, i < len(now)-end
		switch {
		case hasOld && hasNew:
			w.walk(at, old[i], now[i])
		case hasOld:
			w.add(leaf{steps: at, old: old[i], hasOld: true})
		case hasNew:
			w.add(leaf{steps: at, new: now[i], hasNew: true})
		}
	}
}

// equal compares two values, the order of keys aside.
func (w *walker) equal(old, now any) bool {
	if w.same == nil {
		return reflect.DeepEqual(old, now)
	}
	switch before := old.(type) {
	case string:
		after, ok := now.(string)
		if !ok || before == after {
			return ok
		}
		if w.same(after, before) {
			w.unsure = true
			return true
		}
		return false
	case map[string]any:
		after, ok := now.(map[string]any)
		if !ok || len(before) != len(after) {
			return false
		}
		for key := range before {
			if _, ok := after[key]; !ok || !w.equal(before[key], after[key]) {
				return false
			}
		}
		return true
	case []any:
		after, ok := now.([]any)
		return ok && slices.EqualFunc(before, after, w.equal)
	default:
		return reflect.DeepEqual(old, now)
	}
}

// differentFunctions reports whether two objects are not two versions of one
// thing: {"Ref": …} and {"Fn::Sub": …} differ as a whole.
func differentFunctions(a, b map[string]any) bool {
	f, isFunction := function(a)
	g, isOther := function(b)
	return isFunction != isOther || f != g
}

// function returns the name of the intrinsic function that an object calls.
func function(object map[string]any) (string, bool) {
	if len(object) != 1 {
		return "", false
	}
	for key := range object {
		if key == "Ref" || strings.HasPrefix(key, "Fn::") {
			return key, true
		}
	}
	return "", false
}

// pathOf writes steps as "Properties.Tags[0].Value". Keys that would be
// misread are quoted in brackets.
func pathOf(steps []step) string {
	var out strings.Builder
	for _, s := range steps {
		switch {
		case !s.isKey:
			out.WriteString("[" + strconv.Itoa(s.position) + "]")
		case !isPlainKey(s.key):
			out.WriteString("[" + strconv.Quote(s.key) + "]")
		default:
			if out.Len() > 0 {
				out.WriteByte('.')
			}
			out.WriteString(s.key)
		}
	}
	return out.String()
}

func isPlainKey(key string) bool {
	return key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`.[]"\`, r)
	})
}
