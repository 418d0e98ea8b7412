package migration

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/pgshadow/pgshadow/pkg/verify"
)

// tunable are the flags of alter that may be set while the run is on, and how each
// takes its value.
var tunable = map[string]func(c *Config, value string) error{
	"copy-workers":        tuneInt(func(c *Config) *int { return &c.Copy.Workers }, 1),
	"index-workers":       tuneInt(func(c *Config) *int { return &c.Copy.IndexWorkers }, 1),
	"chunk-time":          tuneDuration(func(c *Config) *time.Duration { return &c.Copy.ChunkTime }, time.Millisecond),
	"max-replica-lag":     tuneDuration(func(c *Config) *time.Duration { return &c.Throttle.MaxReplicaLag }, 0),
	"max-active-sessions": tuneInt(func(c *Config) *int { return &c.Throttle.MaxActiveSessions }, 0),
	"max-rows-per-second": tuneInt(func(c *Config) *int { return &c.Throttle.MaxRowsPerSecond }, 0),
	"throttle-query":      tuneText(func(c *Config) *string { return &c.Throttle.Query }),
	"throttle-file":       tuneText(func(c *Config) *string { return &c.Throttle.File }),
	"max-wal-retained":    tuneBytes(func(c *Config) *int64 { return &c.MaxWALRetained }),
	"lock-timeout":        tuneDuration(func(c *Config) *time.Duration { return &c.Cutover.LockTimeout }, time.Millisecond),
	"max-lock-hold":       tuneDuration(func(c *Config) *time.Duration { return &c.Cutover.MaxLockHold }, time.Millisecond),
	"cutover-attempts":    tuneInt(func(c *Config) *int { return &c.Cutover.Attempts }, 1),
	"cutover":             tuneWord(func(c *Config) *CutoverMode { return &c.Cutover.Mode }),
	"verify":              tuneWord(func(c *Config) *verify.Mode { return &c.Verify }),
	"retire":              tuneWord(func(c *Config) *Retire { return &c.Retire }),
}

// SettingNames are the names that ParseSetting takes, sorted.
func SettingNames() []string { return slices.Sorted(maps.Keys(tunable)) }

// ParseSetting reads NAME=VALUE as pgshadow set takes it, and finds what is wrong
// with it.
func ParseSetting(text string) (name, value string, err error) {
	name, value, found := strings.Cut(text, "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !found || name == "" {
		return "", "", fmt.Errorf("%q: want NAME=VALUE, such as chunk-time=1s", text)
	}
	_, err = Config{}.withDefaults().with(name, value)
	return name, value, err
}

// with returns the configuration with one flag set anew.
func (c Config) with(name, value string) (Config, error) {
	tune := tunable[name]
	if tune == nil {
		return c, fmt.Errorf("%s cannot be set while a run is on; these can: %s", name, strings.Join(SettingNames(), ", "))
	}
	if err := tune(&c, value); err != nil {
		return c, fmt.Errorf("%s is %w", name, err)
	}
	return c, c.validateTuning()
}

func tuneInt(field func(*Config) *int, least int) func(*Config, string) error {
	return func(c *Config, value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < least {
			return fmt.Errorf("%q: want a whole number of at least %d", value, least)
		}
		*field(c) = n
		return nil
	}
}

func tuneDuration(field func(*Config) *time.Duration, least time.Duration) func(*Config, string) error {
	return func(c *Config, value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d < least {
			return fmt.Errorf("%q: want a duration of at least %s, such as 500ms, 10s or 2m", value, least)
		}
		*field(c) = d
		return nil
	}
}

func tuneText[T ~string](field func(*Config) *T) func(*Config, string) error {
	return func(c *Config, value string) error {
		*field(c) = T(value)
		return nil
	}
}

func tuneWord[T ~string](field func(*Config) *T) func(*Config, string) error {
	return func(c *Config, value string) error {
		if value == "" {
			return errors.New("empty: want a word")
		}
		return tuneText(field)(c, value)
	}
}

func tuneBytes(field func(*Config) *int64) func(*Config, string) error {
	return func(c *Config, value string) error {
		n, err := ParseBytes(value)
		if err != nil {
			return err
		}
		*field(c) = n
		return nil
	}
}

// ParseBytes reads a size such as 50GB or 512MB, in powers of 1024 as PostgreSQL's
// own settings are.
func ParseBytes(text string) (int64, error) {
	n, err := units.RAMInBytes(strings.TrimSpace(text))
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q: want a size such as 50GB or 512MB", text)
	}
	return n, nil
}

// readableBytes shows a size in powers of 1024.
func readableBytes(n int64) string {
	return units.CustomSize("%.4g %s", float64(n), 1024, []string{"bytes", "kB", "MB", "GB", "TB", "PB"})
}
