package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

// configName is the setting that names the file of the others.
const configName = "config"

// origin is where a value comes from.
type origin int

// The origins, those that win last.
const (
	fromPreset origin = iota
	fromFile
	fromEnvironment
	fromFlag
)

// origins tells of every setting, by its name, where its value came from.
type origins map[string]origin

// entry is a key of the --config file.
type entry struct {
	texts []string
	line  int
}

// load gives every setting its value: from the flag, else from the environment,
// else from the --config file, else its preset. It returns all problems, joined. The
// file may hold what is to be ignored besides.
func (p *program) load(c *cli.Context, sections []section, ignored ...string) (origins, error) {
	known := map[string]setting{}
	for _, section := range sections {
		for _, s := range section.settings {
			known[s.name] = s
		}
	}
	path := p.configPath(c, known)
	file, err := readFile(path)
	problems := []error{err}
	for _, name := range file.order {
		if _, ok := known[name]; !ok && !slices.Contains(ignored, name) || name == configName {
			problems = append(problems, fmt.Errorf("%s line %d: there is no setting %q", path, file.entries[name].line, name))
		}
	}
	from := origins{}
	for _, section := range sections {
		for _, s := range section.settings {
			texts, where, place := p.find(c, s, path, file)
			from[s.name] = where
			if texts != nil {
				problems = append(problems, s.accept(texts, place))
			}
		}
	}
	return from, errors.Join(problems...)
}

func (p *program) configPath(c *cli.Context, known map[string]setting) string {
	s, ok := known[configName]
	if !ok {
		return ""
	}
	texts, _, _ := p.find(c, s, "", configFile{})
	if texts == nil {
		return ""
	}
	return texts[0]
}

// find looks for a setting's value. place says, in front of a complaint, where
// it was found; an empty variable counts as none.
func (p *program) find(c *cli.Context, s setting, path string, file configFile) (texts []string, where origin, place string) {
	if c.IsSet(s.name) {
		switch {
		case s.many:
			return c.StringSlice(s.name), fromFlag, ""
		case s.placeholder() == "":
			return []string{fmt.Sprint(c.Bool(s.name))}, fromFlag, ""
		default:
			return []string{c.String(s.name)}, fromFlag, ""
		}
	}
	if value, ok := p.env(s.variable()); ok && value != "" {
		return []string{value}, fromEnvironment, s.variable() + ": "
	}
	if found, ok := file.entries[s.name]; ok && s.name != configName {
		return found.texts, fromFile, fmt.Sprintf("%s line %d: ", path, found.line)
	}
	if s.preset != "" {
		return []string{s.preset}, fromPreset, ""
	}
	return nil, fromPreset, ""
}

// configFile is a --config file, read.
type configFile struct {
	entries map[string]entry
	order   []string
}

// readFile reads a YAML file whose keys are names of settings. No path, no entries.
func readFile(path string) (configFile, error) {
	file := configFile{entries: map[string]entry{}}
	if path == "" {
		return file, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return file, fmt.Errorf("reading the --config file: %w", err)
	}
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return file, nil
	case err != nil:
		return file, fmt.Errorf("reading the --config file %s: %w", path, err)
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return file, fmt.Errorf("reading the --config file %s: want one YAML document", path)
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return file, fmt.Errorf("reading the --config file %s: want lines of name: value", path)
	}
	var problems []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		if err := file.add(root.Content[i], root.Content[i+1]); err != nil {
			problems = append(problems, fmt.Errorf("%s line %d: %w", path, root.Content[i].Line, err))
		}
	}
	return file, errors.Join(problems...)
}

func (f *configFile) add(key, value *yaml.Node) error {
	if _, twice := f.entries[key.Value]; twice {
		return fmt.Errorf("%q is given twice", key.Value)
	}
	texts, err := scalars(value)
	if err != nil {
		return fmt.Errorf("%q %w", key.Value, err)
	}
	f.entries[key.Value] = entry{texts: texts, line: key.Line}
	f.order = append(f.order, key.Value)
	return nil
}

// scalars are the texts of a value, or of a list of values.
func scalars(node *yaml.Node) ([]string, error) {
	items := []*yaml.Node{node}
	if node.Kind == yaml.AliasNode {
		return scalars(node.Alias)
	}
	if node.Kind == yaml.SequenceNode {
		items = node.Content
	}
	var texts []string
	for _, item := range items {
		switch {
		case item.Kind != yaml.ScalarNode:
			return nil, errors.New("is neither a text nor a list of texts")
		case item.Tag != "!!null":
			texts = append(texts, item.Value)
		}
	}
	if len(texts) < max(len(items), 1) {
		return nil, errors.New("has no value")
	}
	return texts, nil
}
