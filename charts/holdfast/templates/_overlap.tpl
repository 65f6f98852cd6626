{{/* Two operators that watch the same namespace would both act on its clusters. So a release is refused if another one
     watches one of its namespaces. Without an API server, as in `helm template`, nothing is found and nothing refused. */}}
{{- define "holdfast.noOverlap" -}}
{{- $mine := .Values.watchNamespaces }}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "" "").items }}
{{- $about := .metadata.annotations | default dict }}
{{- if and (hasKey $about "holdfast.dev/watches") (ne .metadata.name (include "holdfast.clusterName" $)) }}
{{- $theirs := without (splitList "," (get $about "holdfast.dev/watches")) "" }}
{{- $both := list }}
{{- range $mine }}{{- if has . $theirs }}{{- $both = append $both . }}{{- end }}{{- end }}
{{- if or (not $mine) (not $theirs) $both }}
{{- $where := "all namespaces" }}
{{- if $theirs }}{{- $where = join ", " $theirs }}{{- end }}
{{- fail (printf "the operator %s already watches %s: set watchNamespaces of both releases so that no namespace is watched twice" .metadata.name $where) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
