{{/* Names leave room for the longest suffix, -gpu-exporter, within 63 characters. */}}
{{- define "gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "gateway.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "gateway.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What selects the pods of a component: list CONTEXT COMPONENT. Never changes between upgrades. */}}
{{- define "gateway.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ include "gateway.name" $ }}
app.kubernetes.io/instance: {{ $.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "gateway.labels" -}}
{{- $ := index . 0 -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" | trunc 63 }}
{{- with $.Values.image.tag }}
app.kubernetes.io/version: {{ . | trunc 63 | regexFind "^.*[A-Za-z0-9]" | quote }}
{{- end }}
{{- end }}

{{- define "gateway.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}
{{- end }}
{{- end }}

{{- define "gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "gateway.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "gateway.claim" -}}
{{- default (include "gateway.fullname" .) .Values.store.sqlite.existingClaim }}
{{- end }}

{{/* The environment variable of a backend's API key, as internal/config makes it of the backend's name. */}}
{{- define "gateway.backendEnv" -}}
SLUICE_BACKEND_{{ . | upper | regexReplaceAll "[^A-Z0-9]" "_" }}_API_KEY
{{- end }}

{{/* Of every pod. The user stands in podSecurityContext. */}}
{{- define "gateway.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Of every container. */}}
{{- define "gateway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
