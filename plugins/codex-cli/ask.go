package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"cpa-codex-cli/internal/plugin"
)

const (
	maxTools  = 512
	maxImages = 32
)

// Ask is a chat request as this plugin understands it.
type Ask struct {
	Model        string
	Messages     []Message
	Tools        []Tool
	IncludeUsage bool
	Effort       string          // reasoning effort, empty where none was asked for
	Schema       json.RawMessage // of the answer, where one was asked for
}

// Message of a conversation: text is all of its text, parts are its pictures.
type Message struct {
	Role   string
	Text   string
	Images []string // data URLs
	CallID string   // of a tool's result
	Calls  []Call   // of an assistant
}

// Call of a tool in the history.
type Call struct {
	ID        string
	Name      string
	Arguments string
}

// Tool that the client offers.
type Tool struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	InputSchema json.RawMessage `json:"inputSchema"`
}

type rawAsk struct {
	Messages      []rawMessage    `json:"messages"`
	Tools         []rawTool       `json:"tools"`
	ToolChoice    json.RawMessage `json:"tool_choice"`
	Effort        string          `json:"reasoning_effort"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	ResponseFormat struct {
		Type       string `json:"type"`
		JSONSchema struct {
			Schema json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	} `json:"response_format"`
}

type rawTool struct {
	Type     string `json:"type"`
	Function struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Parameters  json.RawMessage `json:"parameters"`
	} `json:"function"`
}

type rawMessage struct {
	Role      string          `json:"role"`
	Content   json.RawMessage `json:"content"`
	CallID    string          `json:"tool_call_id"`
	ToolCalls []struct {
		ID       string `json:"id"`
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

type rawPart struct {
	Type     string `json:"type"`
	Text     string `json:"text"`
	Refusal  string `json:"refusal"`
	ImageURL struct {
		URL string `json:"url"`
	} `json:"image_url"`
	File struct {
		Name string `json:"filename"`
	} `json:"file"`
}

func refused(format string, values ...any) error {
	return &plugin.Error{Code: "invalid_request", HTTPStatus: 400, Message: "codex-cli: " + fmt.Sprintf(format, values...)}
}

var efforts = map[string]bool{"minimal": true, "low": true, "medium": true, "high": true, "xhigh": true}

// parseAsk reads a chat request. Raises: a refusal with status 400 that names the member.
func parseAsk(model string, payload []byte) (Ask, error) {
	var raw rawAsk
	if err := json.Unmarshal(payload, &raw); err != nil {
		return Ask{}, refused("expected a chat request: %s", err)
	}
	if strings.HasPrefix(model, "-") || strings.ContainsAny(model, "\x00\r\n") {
		return Ask{}, refused("model: expected an id that does not begin with '-', got %.100q", model)
	}
	ask := Ask{Model: model, IncludeUsage: raw.StreamOptions.IncludeUsage}
	if efforts[raw.Effort] {
		ask.Effort = raw.Effort
	}
	if raw.ResponseFormat.Type == "json_schema" {
		ask.Schema = raw.ResponseFormat.JSONSchema.Schema
	}
	for i, message := range raw.Messages {
		read, err := message.read(i)
		if err != nil {
			return Ask{}, err
		}
		ask.Messages = append(ask.Messages, read)
	}
	if len(ask.Messages) == 0 {
		return Ask{}, refused("messages: expected at least one message")
	}
	if string(raw.ToolChoice) != `"none"` {
		for _, tool := range raw.Tools {
			if tool.Type != "function" || tool.Function.Name == "" {
				continue // tools of the vendor's own servers; the agent has its own
			}
			schema := tool.Function.Parameters
			if len(schema) == 0 || schema[0] != '{' {
				schema = json.RawMessage(`{"type":"object"}`)
			}
			ask.Tools = append(ask.Tools, Tool{tool.Function.Name, tool.Function.Description, schema})
		}
	}
	if len(ask.Tools) > maxTools {
		return Ask{}, refused("tools: expected at most %d, got %d", maxTools, len(ask.Tools))
	}
	return ask, nil
}

func (m rawMessage) read(index int) (Message, error) {
	message := Message{Role: m.Role, CallID: m.CallID}
	switch m.Role {
	case "system", "developer", "user", "assistant", "tool":
	case "function":
		message.Role = "tool"
	default:
		return message, refused("messages[%d].role: expected system, developer, user, assistant or tool, got %.40q", index, m.Role)
	}
	for _, call := range m.ToolCalls {
		message.Calls = append(message.Calls, Call{call.ID, call.Function.Name, call.Function.Arguments})
	}
	if len(m.Content) == 0 || string(m.Content) == "null" {
		return message, nil
	}
	if m.Content[0] == '"' {
		if err := json.Unmarshal(m.Content, &message.Text); err != nil {
			return message, refused("messages[%d].content: %s", index, err)
		}
		return message, nil
	}
	var parts []rawPart
	if err := json.Unmarshal(m.Content, &parts); err != nil {
		return message, refused("messages[%d].content: expected a string or a list of parts: %s", index, err)
	}
	var texts []string
	for _, part := range parts {
		switch {
		case part.Type == "text":
			texts = append(texts, part.Text)
		case part.Type == "refusal":
			texts = append(texts, part.Refusal)
		case part.Type == "image_url" && strings.HasPrefix(part.ImageURL.URL, "data:"):
			message.Images = append(message.Images, part.ImageURL.URL)
		case part.Type == "image_url":
			texts = append(texts, "[image: "+part.ImageURL.URL+"]")
		default:
			texts = append(texts, "["+shortened(part.Type, 40)+" that cannot be shown: "+shortened(part.File.Name, 200)+"]")
		}
	}
	if len(message.Images) > maxImages {
		return message, refused("messages[%d].content: expected at most %d images", index, maxImages)
	}
	message.Text = strings.Join(texts, "\n")
	return message, nil
}

// split is the history, up to the last word of an assistant, and what is new since then. Instructions are in neither.
func (a Ask) split() (history, news []Message) {
	last := 0
	for i, message := range a.Messages {
		if message.Role == "assistant" {
			last = i + 1
		}
	}
	return spoken(a.Messages[:last]), spoken(a.Messages[last:])
}

func spoken(messages []Message) []Message {
	var kept []Message
	for _, message := range messages {
		if message.Role != "system" && message.Role != "developer" {
			kept = append(kept, message)
		}
	}
	return kept
}

// instructions of the client.
func (a Ask) instructions() string {
	var texts []string
	for _, message := range a.Messages {
		if (message.Role == "system" || message.Role == "developer") && strings.TrimSpace(message.Text) != "" {
			texts = append(texts, message.Text)
		}
	}
	return strings.Join(texts, "\n\n")
}

// prompt is what the agent reads. A single message goes as it is; instructions, and a conversation that the agent's
// thread does not hold, come before it in marks.
func prompt(instructions string, history, news []Message) string {
	var parts []string
	if instructions != "" {
		parts = append(parts, "<instructions>\n"+instructions+"\n</instructions>")
	}
	if len(history) > 0 {
		var lines []string
		for _, message := range history {
			lines = append(lines, message.transcript())
		}
		parts = append(parts, "The conversation so far:\n<conversation>\n"+strings.Join(lines, "\n")+"\n</conversation>")
	}
	var texts []string
	for _, message := range news {
		if message.Role == "tool" {
			texts = append(texts, message.transcript())
		} else if message.Text != "" {
			texts = append(texts, message.Text)
		}
	}
	if len(texts) == 0 {
		texts = []string{"Go on."}
	}
	return strings.Join(append(parts, strings.Join(texts, "\n\n")), "\n\n")
}

func (m Message) transcript() string {
	mark, text := m.Role, m.Text
	if m.Role == "tool" {
		mark = "tool_result"
	}
	for _, call := range m.Calls {
		text += "\n[called " + call.Name + " with " + call.Arguments + "]"
	}
	return "<" + mark + ">\n" + strings.TrimPrefix(text, "\n") + "\n</" + mark + ">"
}

// Chain is a fingerprint of a conversation that can be extended.
type Chain string

// extend by messages. White space does not count, nor how an assistant's words are spread over messages, nor the ids of
// calls: translations between protocols change all of these.
func (c Chain) extend(messages []Message) Chain {
	for at := 0; at < len(messages); {
		role := messages[at].Role
		digest := sha256.New()
		fmt.Fprintf(digest, "%s\n%s\n", c, role)
		for at < len(messages) && messages[at].Role == role {
			digest.Write([]byte(squeezed(messages[at].Text)))
			for _, call := range messages[at].Calls {
				fmt.Fprintf(digest, "\x00%s", call.Name)
			}
			for _, image := range messages[at].Images {
				fmt.Fprintf(digest, "\x01%d", len(image))
			}
			at++
		}
		c = Chain(hex.EncodeToString(digest.Sum(nil)[:16]))
	}
	return c
}

func squeezed(text string) string {
	return strings.Map(func(char rune) rune {
		if unicode.IsSpace(char) {
			return -1
		}
		return char
	}, text)
}
