package throttle

import "sync"

// setting is a value that may change while its source is being asked.
type setting[T comparable] struct {
	mu      sync.Mutex
	value   T
	changed chan struct{} // holds at most one "look again"
}

func newSetting[T comparable](value T) *setting[T] {
	return &setting[T]{value: value, changed: make(chan struct{}, 1)}
}

func (s *setting[T]) get() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

// isSet tells whether there is anything but the zero value, which is "off" for every source.
func (s *setting[T]) isSet() bool {
	var off T
	return s.get() != off
}

func (s *setting[T]) set(value T) {
	s.mu.Lock()
	s.value = value
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default: // one that has not been seen yet does for both
	}
}
