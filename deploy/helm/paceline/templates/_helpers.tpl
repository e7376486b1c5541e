{{- define "paceline.name" -}}
{{- .Release.Name | trunc 56 | trimSuffix "-" -}}
{{- end -}}

{{- define "paceline.selector" -}}
app.kubernetes.io/name: paceline-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "paceline.labels" -}}
{{ include "paceline.selector" . }}
app.kubernetes.io/part-of: paceline
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "paceline.secret" -}}
{{- .Values.secretName | default (include "paceline.name" .) -}}
{{- end -}}

{{/* Room for both parts of a shutdown, and for giving the clocks back. The defaults are those of the configuration. */}}
{{- define "paceline.graceSeconds" -}}
{{- $timeouts := .Values.config.timeouts | default dict -}}
{{- $lagMs := (hasKey $timeouts "readinessLagMs") | ternary $timeouts.readinessLagMs 0 -}}
{{- $drainMs := (hasKey $timeouts "drainMs") | ternary $timeouts.drainMs 30000 -}}
{{- add (div (add (int64 $lagMs) (int64 $drainMs) 999) 1000) 10 -}}
{{- end -}}

{{/* What would start and then not be reached, or be refused at the start. */}}
{{- define "paceline.checks" -}}
{{- $config := .Values.config -}}
{{- range $key := list "listen" "admin" "probes" -}}
{{- $at := get $config $key | default dict -}}
{{- $port := index (dict "listen" 8080 "admin" 8081 "probes" 8082) $key -}}
{{- if or (ne (get $at "host" | default "" | toString) "0.0.0.0") (ne (get $at "port" | default 0 | int) $port) -}}
{{- fail (printf "config.%s: got %s, want host 0.0.0.0 and port %d: the pod's ports and probes are there" $key (toJson $at) $port) -}}
{{- end -}}
{{- end -}}
{{- if not (or $config.admin.keyEnv $config.admin.keySha256) -}}
{{- fail "config.admin: want keyEnv or keySha256: the gateway refuses to be reached by others without a key" -}}
{{- end -}}
{{- if and (or (gt (int .Values.replicaCount) 1) .Values.autoscaling.enabled) (not $config.store) -}}
{{- fail "config.store: missing; several gateways in front of the same servers tell each other their load through Redis" -}}
{{- end -}}
{{- end -}}
