// Reads deployment files as their own programs would, without a cluster or a daemon, and refuses what those would pass over:
// a field that does not exist, given twice, or of another type. Used by `make test-deploy`.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/cli"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: deploy-check kubernetes|compose FILE...")
		os.Exit(2)
	}
	check := map[string]func(string) (string, error){"kubernetes": kubernetes, "compose": compose}[os.Args[1]]
	failed := check == nil
	if check == nil {
		fmt.Fprintf(os.Stderr, "%s: want kubernetes or compose\n", os.Args[1])
	} else {
		for _, path := range os.Args[2:] {
			if found, err := check(path); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
				failed = true
			} else {
				fmt.Printf("%s: %s\n", path, found)
			}
		}
	}
	if failed {
		os.Exit(1)
	}
}

// Every document against the API's own types; unknown and repeated fields are errors.
func kubernetes(path string) (string, error) {
	if err := monitoring.AddToScheme(scheme.Scheme); err != nil {
		return "", err
	}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	documents := yaml.NewYAMLReader(newReader(text))
	found := ""
	var problems []error
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		if len(bytes.TrimSpace(withoutComments(document))) == 0 {
			continue
		}
		_, kind, err := decoder.Decode(document, nil, nil)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		found += " " + kind.Kind
	}
	if found == "" && len(problems) == 0 {
		problems = append(problems, errors.New("holds no object"))
	}
	return "ok:" + found, errors.Join(problems...)
}

// As `docker compose config` reads it: interpolation, the schema, references between services, volumes and networks.
func compose(path string) (string, error) {
	options, err := cli.NewProjectOptions([]string{path}, cli.WithWorkingDirectory(filepath.Dir(path)), cli.WithName("check"))
	if err != nil {
		return "", err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("ok: %v", project.ServiceNames()), nil
}
