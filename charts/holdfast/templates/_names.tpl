{{/* Of the objects in the release's namespace. Two releases in one cluster, or in one namespace, share no name. */}}
{{- define "holdfast.name" -}}
{{ .Release.Name | trunc 54 | trimSuffix "-" }}-operator
{{- end }}

{{/* Of the objects that are in no namespace. */}}
{{- define "holdfast.clusterName" -}}
{{ .Release.Namespace }}:{{ include "holdfast.name" . }}
{{- end }}

{{- define "holdfast.labels" -}}
app.kubernetes.io/name: {{ include "holdfast.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/part-of: holdfast
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
