package plugin

import "time"

// The messages of the contract that more than one example needs, with the contract's names. A field that the contract
// has and this does not is a line to add.

// Header is a map of HTTP headers or of a query: names to their values.
type Header = map[string][]string

// ---- registration ----

// RegisterRequest is what plugin.register and plugin.reconfigure bring.
type RegisterRequest struct {
	ConfigYAML    []byte `json:"config_yaml"`    // plugins.configs.<id> of the configuration; see ReadSettings
	SchemaVersion int    `json:"schema_version"` // the newest one that the host knows
}

// Registration is the answer.
type Registration struct {
	SchemaVersion int          `json:"schema_version"`
	Metadata      Metadata     `json:"metadata"`
	Capabilities  Capabilities `json:"capabilities"`
}

// Metadata tells operators what this is; everything but Logo and ConfigFields has to be there.
type Metadata struct {
	Name             string
	Version          string
	Author           string
	GitHubRepository string
	Logo             string
	ConfigFields     []ConfigField
}

// ConfigField describes a setting of the plugin to operators; the host checks nothing.
type ConfigField struct {
	Name        string
	Type        string // string, number, integer, boolean, enum, array or object
	EnumValues  []string
	Description string
}

// Capabilities are the methods that the host may call.
type Capabilities struct {
	ModelRegistrar            bool `json:"model_registrar,omitempty"`
	ModelProvider             bool `json:"model_provider,omitempty"`
	AuthProvider              bool `json:"auth_provider,omitempty"`
	FrontendAuthProvider      bool `json:"frontend_auth_provider,omitempty"`
	Scheduler                 bool `json:"scheduler,omitempty"`
	ModelRouter               bool `json:"model_router,omitempty"`
	Executor                  bool `json:"executor,omitempty"`
	RequestTranslator         bool `json:"request_translator,omitempty"`
	RequestNormalizer         bool `json:"request_normalizer,omitempty"`
	RequestInterceptor        bool `json:"request_interceptor,omitempty"`
	RequestLifecyclePlugin    bool `json:"request_lifecycle_plugin,omitempty"`
	ResponseTranslator        bool `json:"response_translator,omitempty"`
	ResponseBeforeTranslator  bool `json:"response_before_translator,omitempty"`
	ResponseAfterTranslator   bool `json:"response_after_translator,omitempty"`
	ResponseInterceptor       bool `json:"response_interceptor,omitempty"`
	ResponseStreamInterceptor bool `json:"response_stream_interceptor,omitempty"`
	ThinkingApplier           bool `json:"thinking_applier,omitempty"`
	UsagePlugin               bool `json:"usage_plugin,omitempty"`
	CommandLinePlugin         bool `json:"command_line_plugin,omitempty"`
	ManagementAPI             bool `json:"management_api,omitempty"`

	// More about some of them.
	FrontendAuthProviderExclusive bool     `json:"frontend_auth_provider_exclusive,omitempty"`
	ExecutorModelScope            string   `json:"executor_model_scope,omitempty"` // both, static or oauth
	ExecutorInputFormats          []string `json:"executor_input_formats,omitempty"`
	ExecutorOutputFormats         []string `json:"executor_output_formats,omitempty"`
}

// Identifier is the answer to all *.identifier methods.
type Identifier struct {
	Identifier string `json:"identifier"`
}

// ---- models and credentials ----

// Models is the answer to model.register, model.static and model.for_auth.
type Models struct {
	Provider string
	Models   []Model
}

// Model is one of them.
type Model struct {
	ID                         string
	Object                     string
	OwnedBy                    string
	DisplayName                string
	SupportedGenerationMethods []string
	ContextLength              int
	MaxCompletionTokens        int
	UserDefined                bool
}

// Auth is a credential.
type Auth struct {
	Provider    string
	ID          string
	FileName    string
	Label       string
	StorageJSON []byte // an object, which is kept in the file
	Metadata    map[string]any
}

// AuthParsed is the answer to auth.parse; not Handled means: not one of mine.
type AuthParsed struct {
	Handled bool
	Auth    Auth
}

// AuthRefreshed is the answer to auth.refresh.
type AuthRefreshed struct {
	Auth             Auth
	NextRefreshAfter *time.Time `json:",omitempty"`
}

// LoginStarted is the answer to auth.login.start.
type LoginStarted struct {
	Provider  string
	URL       string
	State     string
	ExpiresAt time.Time
}

// LoginPolled is the answer to auth.login.poll.
type LoginPolled struct {
	Status  string // pending, success or error
	Message string
	Auth    *Auth `json:",omitempty"`
}

// Client is the answer to frontend_auth.authenticate.
type Client struct {
	Authenticated bool
	Principal     string            `json:",omitempty"`
	Metadata      map[string]string `json:",omitempty"`
}

// ---- executors ----

// Executed is the answer to executor.execute and executor.count_tokens.
type Executed struct {
	Payload []byte
	Headers Header `json:",omitempty"`
}

// Streamed is the answer to executor.execute_stream that has all chunks in it.
type Streamed struct {
	Headers Header  `json:"headers,omitempty"`
	Chunks  []Chunk `json:"chunks"`
}

// Chunk is one of them.
type Chunk struct {
	Payload []byte
}

// Response is the answer to executor.http_request and management.handle.
type Response struct {
	StatusCode int
	Headers    Header `json:",omitempty"`
	Body       []byte
}

// ---- transforms ----

// TransformRequest is what request.translate and request.normalize bring.
type TransformRequest struct {
	FromFormat string
	ToFormat   string
	Model      string
	Stream     bool
	Body       []byte
}

// Body is the answer to all transforms and to thinking.apply; an empty one changes nothing.
type Body struct {
	Body []byte
}

// ---- command line ----

// Flags is the answer to command_line.register.
type Flags struct {
	Flags []Flag
}

// Flag is one of them.
type Flag struct {
	Name  string
	Usage string
	Type  string // bool, string, int, int64, float64 or duration
}

// CommandDone is the answer to command_line.execute.
type CommandDone struct {
	Stdout   []byte
	ExitCode int
}

// ---- pages ----

// Pages is the answer to management.register.
type Pages struct {
	Resources []Resource `json:"resources"`
}

// Resource is a page that a browser may open without a key, below /v0/resource/plugins/<id>.
type Resource struct {
	Path        string
	Menu        string
	Description string
}

// PageRequest is what management.handle brings.
type PageRequest struct {
	Method     string
	Path       string
	Headers    Header
	Query      Header
	Body       []byte
	CallbackID string `json:"host_callback_id"` // for calls of the host that belong to this request
}

// HTML is a page.
func HTML(status int, page string) Response { return text(status, "text/html; charset=utf-8", page) }

// Text is a message without a page around it.
func Text(status int, message string) Response {
	return text(status, "text/plain; charset=utf-8", message)
}

func text(status int, contentType, body string) Response {
	return Response{StatusCode: status, Headers: Header{"Content-Type": {contentType}}, Body: []byte(body)}
}
