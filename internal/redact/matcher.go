package redact

// matcher finds all of a set of needles in one pass over a stream, keeping
// one small state between bytes (Aho and Corasick, 1975). Transitions are
// sparse: keys and certificates make thousands of states with one successor.
type matcher struct {
	nodes []node
	first [256]int32 // successors of the root; 0 is the root itself
}

type node struct {
	next  map[byte]int32 // successors but one
	only  int32          // the one successor, 0 if none
	edge  byte           // the byte that leads to it
	fail  int32          // longest proper suffix that is a state
	depth int            // bytes matched so far
	match int            // length of the longest needle that ends here, 0 if none
}

func newMatcher(needles []string) *matcher {
	m := &matcher{nodes: make([]node, 1)}
	for _, needle := range needles {
		m.insert(needle)
	}
	m.link()
	return m
}

func (m *matcher) insert(needle string) {
	state := int32(0)
	for i := range len(needle) {
		next := m.successor(state, needle[i])
		if next == 0 {
			m.nodes = append(m.nodes, node{depth: i + 1})
			next = int32(len(m.nodes) - 1) // bounded by the total length of the needles
			m.connect(state, needle[i], next)
		}
		state = next
	}
	m.nodes[state].match = len(needle)
}

func (m *matcher) connect(state int32, b byte, next int32) {
	n := &m.nodes[state]
	switch {
	case state == 0:
		m.first[b] = next
	case n.only == 0:
		n.only, n.edge = next, b
	case n.next == nil:
		n.next = map[byte]int32{b: next}
	default:
		n.next[b] = next
	}
}

func (m *matcher) successor(state int32, b byte) int32 {
	if state == 0 {
		return m.first[b]
	}
	n := &m.nodes[state]
	if n.only != 0 && n.edge == b {
		return n.only
	}
	return n.next[b]
}

// link sets the failure links breadth first and passes shorter needles that
// are suffixes on to the states that contain them.
func (m *matcher) link() {
	queue := make([]int32, 0, len(m.nodes))
	for _, child := range m.first {
		if child != 0 {
			queue = append(queue, child)
		}
	}
	for i := 0; i < len(queue); i++ {
		state := queue[i]
		m.eachSuccessor(state, func(b byte, child int32) {
			fail := m.step(m.nodes[state].fail, b)
			m.nodes[child].fail = fail
			if m.nodes[child].match == 0 {
				m.nodes[child].match = m.nodes[fail].match
			}
			queue = append(queue, child)
		})
	}
}

func (m *matcher) eachSuccessor(state int32, visit func(b byte, child int32)) {
	n := m.nodes[state]
	if n.only != 0 {
		visit(n.edge, n.only)
	}
	for b, child := range n.next {
		visit(b, child)
	}
}

// step returns the state after one more byte.
func (m *matcher) step(state int32, b byte) int32 {
	for state != 0 {
		if next := m.successor(state, b); next != 0 {
			return next
		}
		state = m.nodes[state].fail
	}
	return m.first[b]
}
