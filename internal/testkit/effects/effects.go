// Package effects keeps in memory what a stage records in the journal.
package effects

import (
	"context"
	"sync"
)

// Memory is the journal of one execution, for tests of what writes it. Its zero
// value is empty. It is safe for concurrent use.
type Memory struct {
	// Fail is the error of every Put, Before what earlier tries recorded, under
	// any name. Both are set while nothing uses the Memory.
	Fail   error
	Before [][]byte

	mu      sync.Mutex
	entries map[string][]byte
}

// Put records value under name.
func (m *Memory) Put(_ context.Context, name string, value []byte) error {
	if m.Fail != nil {
		return m.Fail
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries == nil {
		m.entries = map[string][]byte{}
	}
	m.entries[name] = value
	return nil
}

// Get returns what was recorded under name.
func (m *Memory) Get(_ context.Context, name string) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	value, ok := m.entries[name]
	return value, ok, nil
}

// Earlier returns Before.
func (m *Memory) Earlier(context.Context, string) ([][]byte, error) { return m.Before, nil }

// Values returns everything recorded, in any order.
func (m *Memory) Values() [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	values := make([][]byte, 0, len(m.entries))
	for _, value := range m.entries {
		values = append(values, value)
	}
	return values
}
