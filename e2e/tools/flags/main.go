// Flags is an application with OpenFeature's stock flagd provider, in process: flags PORT SELECTOR.
//
// Prints `ready`; then answers each line of its input, the JSON of [type, flag, context], by the JSON of
// [value, variant, reason]. Prints each event as `event NAME FLAGS`. (store/tests/integration/flag_app.py is the same in
// Python.)
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"

	flagd "github.com/open-feature/go-sdk-contrib/providers/flagd/pkg"
	"github.com/open-feature/go-sdk/openfeature"
)

var lock sync.Mutex

func say(line string) {
	lock.Lock()
	defer lock.Unlock()
	fmt.Println(line)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func watch(kind openfeature.EventType) {
	told := func(details openfeature.EventDetails) {
		sort.Strings(details.FlagChanges)
		say(fmt.Sprintf("event %s %s", kind, strings.Join(details.FlagChanges, ",")))
	}
	openfeature.AddHandler(kind, &told)
}

func main() {
	port, err := strconv.ParseUint(os.Args[1], 10, 16)
	check(err)
	provider, err := flagd.NewProvider(
		flagd.WithInProcessResolver(),
		flagd.WithHost("127.0.0.1"),
		flagd.WithPort(uint16(port)),
		flagd.WithSelector(os.Args[2]),
	)
	check(err)
	watch(openfeature.ProviderConfigChange)
	check(openfeature.SetProviderAndWait(provider))
	client := openfeature.NewClient("app")
	say("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var question [3]any
		check(json.Unmarshal(lines.Bytes(), &question))
		attributes := question[2].(map[string]any)
		key, _ := attributes["key"].(string)
		delete(attributes, "key")
		answer := ask(client, question[0].(string), question[1].(string), openfeature.NewEvaluationContext(key, attributes))
		text, err := json.Marshal(answer)
		check(err)
		say(string(text))
	}
}

func ask(client *openfeature.Client, kind, flag string, ctx openfeature.EvaluationContext) [3]any {
	var value any
	var details openfeature.EvaluationDetails
	switch kind {
	case "boolean":
		found, _ := client.BooleanValueDetails(context.Background(), flag, false, ctx)
		value, details = found.Value, found.EvaluationDetails
	case "string":
		found, _ := client.StringValueDetails(context.Background(), flag, "?", ctx)
		value, details = found.Value, found.EvaluationDetails
	case "integer":
		found, _ := client.IntValueDetails(context.Background(), flag, -1, ctx)
		value, details = found.Value, found.EvaluationDetails
	}
	var variant any
	if details.Variant != "" {
		variant = details.Variant
	}
	reason := string(details.Reason)
	if details.ErrorCode != "" {
		reason = string(details.ErrorCode)
	}
	return [3]any{value, variant, reason}
}
